"""The cache of decoded images: made once, shared, remade when the source changes; and what identifies a data set."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mhist_tune.data.annotations import REQUIRED_COLUMNS, read_annotations
from mhist_tune.data.cache import fingerprint, load_train
from mhist_tune.data.synthesize import synthesize
from mhist_tune.errors import DataError, StorageError

SIZE = 24


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 24 images."""
    root = tmp_path / "data"
    synthesize(root, n_images=24, image_size=SIZE)
    return root


def files(cache_dir: Path, pattern: str) -> list[Path]:
    return sorted(cache_dir.glob(pattern))


def test_train_images_are_the_files_pixels_in_the_order_of_names(root: Path, tmp_path: Path) -> None:
    """At the files' own size the tensor holds their very pixels; only train rows are there."""
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    table = read_annotations(root, "train")
    assert train.names == table.names
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.float32
    assert train.labels.tolist() == table.labels.tolist()
    assert train.votes.tolist() == table.votes.tolist()
    for image, path in zip(train.images, table.paths, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


def test_a_second_load_decodes_nothing(root: Path, tmp_path: Path) -> None:
    """The cache file stays as it is, and another size gets a file of its own."""
    cache = tmp_path / "cache"
    first = load_train(root, image_size=SIZE, cache_dir=cache)
    (file,) = files(cache, "*.npy")
    before = file.stat()
    again = load_train(root, image_size=SIZE, cache_dir=cache)
    assert torch.equal(first.images, again.images)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert load_train(root, image_size=16, cache_dir=cache).images.shape[-1] == 16
    assert len(files(cache, "*.npy")) == 2
    assert files(cache, "*.partial") == []


def test_writing_to_the_tensor_leaves_the_cache_file_alone(root: Path, tmp_path: Path) -> None:
    """The file is mapped copy-on-write: another process never sees what one process does to its tensor."""
    first = load_train(root, image_size=SIZE, cache_dir=tmp_path)
    first.images.zero_()
    assert load_train(root, image_size=SIZE, cache_dir=tmp_path).images.any()


def test_a_changed_image_is_decoded_again(root: Path, tmp_path: Path) -> None:
    """Another picture under the same name, of the same size in bytes, shows up at the next load."""
    path = read_annotations(root, "train").paths[0]
    pixels = np.asarray(Image.open(path))
    Image.fromarray(pixels).save(path, compress_level=0)
    before, n_bytes = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache"), path.stat().st_size
    Image.fromarray(255 - pixels).save(path, compress_level=0)
    assert path.stat().st_size == n_bytes
    after = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    assert torch.equal(after.images[0], 255 - before.images[0])


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_changed_cache_file_is_made_again(root: Path, tmp_path: Path, is_same_process: bool) -> None:
    """One other pixel in the file is noticed by this process; by the next one even if the file's time was put back."""
    whole = load_train(root, image_size=SIZE, cache_dir=tmp_path).images.clone()
    (file,) = files(tmp_path, "*.npy")
    stat = file.stat()
    with file.open("r+b") as changed:
        changed.seek(-1, os.SEEK_END)
        (last,) = changed.read(1)
        changed.seek(-1, os.SEEK_END)
        changed.write(bytes([last ^ 255]))
    if is_same_process:
        assert torch.equal(load_train(root, image_size=SIZE, cache_dir=tmp_path).images, whole)
        return
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    script = (
        "import sys; from pathlib import Path; from mhist_tune.data.cache import load_train\n"
        f"print(int(load_train(Path(sys.argv[1]), image_size={SIZE}, cache_dir=Path(sys.argv[2])).images.sum()))"
    )
    found = subprocess.run([sys.executable, "-c", script, root, tmp_path], capture_output=True, text=True, check=True)
    assert found.stdout == f"{int(whole.sum())}\n"


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_cache_file_without_its_hash_is_made_again(root: Path, tmp_path: Path, damage: str) -> None:
    """Without a hash that fits, the images are decoded."""
    whole = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache").images.clone()
    (file,), (hashed,) = files(tmp_path / "cache", "*.npy"), files(tmp_path / "cache", "*.sha256")
    pixels = np.load(file)
    np.save(file, 255 - pixels)
    hashed.unlink() if damage == "gone" else hashed.write_text("0" * 64)
    assert torch.equal(load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache").images, whole)


def test_only_this_user_may_read_the_cache(root: Path, tmp_path: Path) -> None:
    """The umask makes no difference."""
    before = os.umask(0)
    try:
        load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    for file in [*files(tmp_path / "cache", "*.npy"), *files(tmp_path / "cache", "*.sha256")]:
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_cache_file_cut_short_is_made_again(root: Path, tmp_path: Path) -> None:
    """A truncated file, as a crash of the machine may leave it, is replaced by a whole one."""
    whole = load_train(root, image_size=SIZE, cache_dir=tmp_path).images.clone()
    (file,) = files(tmp_path, "*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(load_train(root, image_size=SIZE, cache_dir=tmp_path).images, whole)


def test_workers_that_start_together_share_one_cache(root: Path, tmp_path: Path) -> None:
    """Three processes on an empty cache all get the same tensor, and one file is left."""
    script = (
        "import sys; from pathlib import Path; from mhist_tune.data.cache import load_train\n"
        f"print(int(load_train(Path(sys.argv[1]), image_size={SIZE}, cache_dir=Path(sys.argv[2])).images.sum()))"
    )
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 3
    assert sums == {f"{int(load_train(root, image_size=SIZE, cache_dir=tmp_path / 'cache').images.sum())}\n"}
    assert len(files(tmp_path / "cache", "*.npy")) == 1


def test_other_sizes_and_modes_become_square_rgb(root: Path, tmp_path: Path) -> None:
    """A grey JPEG and a larger PNG with alpha are converted and resized; a flat colour survives both exactly."""
    table = read_annotations(root, "train")
    Image.new("L", (SIZE, SIZE), 77).save(table.paths[0], "JPEG")
    Image.new("RGBA", (3 * SIZE, 2 * SIZE), (10, 200, 30, 255)).save(table.paths[1], "PNG")
    images = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache").images
    assert (images[0] == 77).all()
    assert (images[1] == torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1)).all()


def test_transparent_turned_and_sixteen_bit_images_are_read_as_they_look(root: Path, tmp_path: Path) -> None:
    """The tensor holds what a viewer shows, so training sees it."""
    table = read_annotations(root, "train")
    Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0)).save(table.paths[0], "PNG")
    Image.fromarray(np.full((SIZE, SIZE), 100 * 257, np.uint16)).save(table.paths[1], "PNG")
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = np.repeat(np.linspace(0, 255, SIZE).astype(np.uint8)[:, None], SIZE, axis=1)
    Image.fromarray(upside_down).save(table.paths[2], "PNG", exif=exif)
    images = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache").images
    assert (images[0] == 255).all()
    assert (images[1] == 100).all()
    assert np.array_equal(images[2, 0].numpy(), upside_down[::-1])


@pytest.mark.parametrize("damage", ["cut", "text", "gone", "pipe", "device"])
def test_a_broken_image_is_named_with_the_remedy(root: Path, tmp_path: Path, damage: str) -> None:
    """The error names the file and the command that lists them all; no cache file is left."""
    path = read_annotations(root, "train").paths[5]
    if damage in ("gone", "pipe", "device"):
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage == "device":
        path.symlink_to("/dev/zero")
    elif damage != "gone":
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"not an image")
    with pytest.raises(DataError, match=path.name) as caught:
        load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    assert f"mhist-tune data check {root}" in (caught.value.hint or "")
    assert files(tmp_path / "cache", "*.npy") + files(tmp_path / "cache", "*.partial") == []


def test_test_images_are_not_needed(root: Path, tmp_path: Path) -> None:
    """With every test image deleted the train partition loads and its fingerprint stays."""
    before = fingerprint(root)
    for path in read_annotations(root, "test").paths:
        path.unlink()
    assert fingerprint(root) == before
    assert len(load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")) == 17


def test_a_cache_folder_that_cannot_be_made_is_a_storage_error(root: Path, tmp_path: Path) -> None:
    """The error names the folder; a file stands in its place here."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"cannot write the image cache in .*taken"):
        load_train(root, image_size=SIZE, cache_dir=tmp_path / "taken" / "cache")


def test_the_fingerprint_is_of_the_content_alone(root: Path, tmp_path: Path) -> None:
    """A copy elsewhere with LF line ends and rows in reverse has it; another vote or another pixel has not."""
    before = fingerprint(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    with (root / "annotations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [",".join(REQUIRED_COLUMNS), *(",".join(row.values()) for row in reversed(rows))]
    (copy / "annotations.csv").write_text("\n".join(lines) + "\n")
    assert fingerprint(copy) == before

    path = read_annotations(copy, "train").paths[0]
    original = path.read_bytes()
    path.write_bytes(original + b"\0")
    assert fingerprint(copy) != before
    path.write_bytes(original)
    assert fingerprint(copy) == before
    votes = next(row for row in rows if row["Partition"] == "train" and row[REQUIRED_COLUMNS[2]] == "0")
    text = (copy / "annotations.csv").read_text()
    (copy / "annotations.csv").write_text(text.replace(f"{votes['Image Name']},HP,0", f"{votes['Image Name']},HP,1"))
    assert fingerprint(copy) != before
