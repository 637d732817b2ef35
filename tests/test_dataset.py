"""The cache of decoded images: made once, shared, remade when the source changes; and what identifies a data set."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mhist_tune import dataset
from mhist_tune.annotations import REQUIRED_COLUMNS, read_annotations
from mhist_tune.errors import DataError, StorageError
from mhist_tune.synthesize import synthesize

SIZE = 24
PAST_S = 1_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 24 images whose files are old enough for the stat index to trust."""
    root = tmp_path / "data"
    synthesize(root, n_images=24, image_size=SIZE)
    for path in (root / "images").iterdir():
        os.utime(path, (PAST_S, PAST_S))
    return root


def files(cache_dir: Path, pattern: str) -> list[Path]:
    return sorted(cache_dir.glob(pattern))


def test_train_images_are_the_files_pixels_in_the_order_of_names(root: Path, tmp_path: Path) -> None:
    """At the files' own size the tensor holds their very pixels; only train rows are there."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    table = read_annotations(root, "train")
    assert train.names == table.names
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.float32
    assert train.labels.tolist() == table.labels.tolist()
    assert train.votes.tolist() == table.votes.tolist()
    for image, path in zip(train.images, table.paths, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


def test_take_keeps_everything_aligned(root: Path, tmp_path: Path) -> None:
    """Any order and repeats: pixels, labels, votes and names of the chosen images, without touching the cache."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    some = train.take([3, 0, 3])
    assert len(some) == 3
    assert some.names == (train.names[3], train.names[0], train.names[3])
    assert torch.equal(some.images[1], train.images[0])
    assert some.votes.tolist() == [int(train.votes[index]) for index in (3, 0, 3)]
    assert some.groups is None
    some.images.zero_()
    assert train.images[3].any()


def test_a_second_load_decodes_nothing(root: Path, tmp_path: Path) -> None:
    """The cache file stays as it is, and another size gets a file of its own."""
    cache = tmp_path / "cache"
    first = dataset.load_train(root, image_size=SIZE, cache_dir=cache)
    (file,) = files(cache, "*.npy")
    before = file.stat()
    again = dataset.load_train(root, image_size=SIZE, cache_dir=cache)
    assert torch.equal(first.images, again.images)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert dataset.load_train(root, image_size=16, cache_dir=cache).images.shape[-1] == 16
    assert len(files(cache, "*.npy")) == 2
    assert files(cache, "*.partial") == []


def test_a_batch_leaves_no_page_of_the_file_with_the_process(root: Path, tmp_path: Path) -> None:
    """A subset copies no image; what a batch read of the cache file is given back and can be read again."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path)
    (file,) = files(tmp_path, "*.npy")
    whole = train.images.clone()
    assert resident_kb(file) > 0
    taken = train.take(range(len(train))[::-1])
    assert taken.pixels is train.pixels
    batch = taken.at(torch.tensor([2, 0]))

    assert resident_kb(file) == 0
    assert torch.equal(batch, whole[[-3, -1]])
    assert torch.equal(taken.images, whole.flip(0))
    assert torch.equal(train.images, whole)


@pytest.mark.parametrize("n", [1, 4, 100])
def test_batches_are_the_images_in_their_order(root: Path, tmp_path: Path, n: int) -> None:
    """Those of a subset of a subset, none left out, as many at a time as torch.split takes."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path)
    some = train.take([5, 3, 8, 1, 0, 9]).take([4, 0, 0, 2, 1])

    batches = list(some.split(n))

    assert some.names == tuple(train.names[index] for index in (0, 5, 5, 8, 3))
    assert [len(batch) for batch in batches] == [len(batch) for batch in some.images.split(n)]
    assert torch.equal(torch.cat(batches), train.images[[0, 5, 5, 8, 3]])


def test_images_that_a_gpu_has_no_room_for_stay_where_they_are(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are then read into page-locked memory, batch by batch; on the CPU the set is itself."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path).take([1, 3, 4, 7])
    n_bytes, pinned, empty = 4 * 3 * SIZE * SIZE, list[bool](), torch.empty
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (n_bytes / dataset.MAX_SHARE - 1, 2**40))

    def noted(*shape: Any, pin_memory: bool, **options: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(*shape, **options)

    staying = train.to(torch.device("cuda"))
    monkeypatch.setattr(torch, "empty", noted)

    assert train.to(torch.device("cpu")) is train
    assert staying.pixels is train.pixels
    assert torch.equal(staying.at(torch.tensor([2])), train.at(torch.tensor([2])))
    assert pinned == [True, False]


def test_images_move_to_a_device_alone(root: Path, tmp_path: Path) -> None:
    """Of the pixels that a subset shares only its own are copied; torch's meta device stands in for a GPU."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path)
    moved = train.take([1, 3, 4]).to(torch.device("meta"))

    assert (moved.pixels.device.type, moved.pixels.shape) == ("meta", (3, 3, SIZE, SIZE))
    assert moved.rows is None
    assert moved.to(torch.device("meta")) is moved
    assert moved.take([2, 1]).images.shape == (2, 3, SIZE, SIZE)


def test_what_stays_is_asked_for_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of images that stayed stays as well, however much room there is by then: no trial moves it again."""
    train = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**40))
    part = train.to(torch.device("cuda")).take([5, 2])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))

    assert part.to(torch.device("cuda")) is part
    assert part.pixels is train.pixels


def resident_kb(file: Path) -> int:
    """Return how much of a mapped file lies in this process's memory, in KiB."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = [index for index, line in enumerate(lines) if line.endswith(str(file))]
    return sum(int(line.split()[1]) for index in at for line in lines[index : index + 6] if line.startswith("Rss:"))


def test_writing_to_the_tensor_leaves_the_cache_file_alone(root: Path, tmp_path: Path) -> None:
    """The file is mapped copy-on-write: another process never sees what one process does to its tensor."""
    first = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path)
    first.images.zero_()
    assert dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path).images.any()


def test_a_changed_image_is_decoded_again(root: Path, tmp_path: Path) -> None:
    """Another picture under the same name, of the same size in bytes, shows up at the next load."""
    path = read_annotations(root, "train").paths[0]
    pixels = np.asarray(Image.open(path))
    Image.fromarray(pixels).save(path, compress_level=0)
    before, n_bytes = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache"), path.stat().st_size
    Image.fromarray(255 - pixels).save(path, compress_level=0)
    assert path.stat().st_size == n_bytes
    after = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    assert torch.equal(after.images[0], 255 - before.images[0])


def test_a_cache_file_cut_short_is_made_again(root: Path, tmp_path: Path) -> None:
    """A truncated file, as a crash of the machine may leave it, is replaced by a whole one."""
    whole = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path).images.clone()
    (file,) = files(tmp_path, "*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path).images, whole)


def test_workers_that_start_together_share_one_cache(root: Path, tmp_path: Path) -> None:
    """Three processes on an empty cache all get the same tensor, and one file is left."""
    script = (
        "import sys; from pathlib import Path; from mhist_tune.dataset import load_train\n"
        f"print(int(load_train(Path(sys.argv[1]), image_size={SIZE}, cache_dir=Path(sys.argv[2])).images.sum()))"
    )
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 3
    assert sums == {f"{int(dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / 'cache').images.sum())}\n"}
    assert len(files(tmp_path / "cache", "*.npy")) == 1


def test_other_sizes_and_modes_become_square_rgb(root: Path, tmp_path: Path) -> None:
    """A grey JPEG and a larger PNG with alpha are converted and resized; a flat colour survives both exactly."""
    table = read_annotations(root, "train")
    Image.new("L", (SIZE, SIZE), 77).save(table.paths[0], "JPEG")
    Image.new("RGBA", (3 * SIZE, 2 * SIZE), (10, 200, 30, 255)).save(table.paths[1], "PNG")
    images = dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache").images
    assert (images[0] == 77).all()
    assert (images[1] == torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1)).all()


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
def test_a_broken_image_is_named_with_the_remedy(root: Path, tmp_path: Path, damage: str) -> None:
    """The error names the file and the command that lists them all; no cache file is left."""
    path = read_annotations(root, "train").paths[5]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"not an image")
    with pytest.raises(DataError, match=path.name) as caught:
        dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    assert f"mhist-tune data check {root}" in (caught.value.hint or "")
    assert files(tmp_path / "cache", "*.npy") + files(tmp_path / "cache", "*.partial") == []


def test_test_images_are_not_needed(root: Path, tmp_path: Path) -> None:
    """With every test image deleted the train partition loads and its fingerprint stays."""
    before = dataset.fingerprint(root)
    for path in read_annotations(root, "test").paths:
        path.unlink()
    assert dataset.fingerprint(root) == before
    assert len(dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")) == 17


def test_a_cache_folder_that_cannot_be_made_is_a_storage_error(root: Path, tmp_path: Path) -> None:
    """The error names the folder; a file stands in its place here."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"cannot write the image cache in .*taken"):
        dataset.load_train(root, image_size=SIZE, cache_dir=tmp_path / "taken" / "cache")


def test_the_fingerprint_is_of_the_content_alone(root: Path, tmp_path: Path) -> None:
    """A copy elsewhere with LF line ends and rows in reverse has it; another vote or another pixel has not."""
    before = dataset.fingerprint(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    with (root / "annotations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [",".join(REQUIRED_COLUMNS), *(",".join(row.values()) for row in reversed(rows))]
    (copy / "annotations.csv").write_text("\n".join(lines) + "\n")
    assert dataset.fingerprint(copy) == before

    path = read_annotations(copy, "train").paths[0]
    original = path.read_bytes()
    path.write_bytes(original + b"\0")
    assert dataset.fingerprint(copy) != before
    path.write_bytes(original)
    assert dataset.fingerprint(copy) == before
    votes = next(row for row in rows if row["Partition"] == "train" and row[REQUIRED_COLUMNS[2]] == "0")
    text = (copy / "annotations.csv").read_text()
    (copy / "annotations.csv").write_text(text.replace(f"{votes['Image Name']},HP,0", f"{votes['Image Name']},HP,1"))
    assert dataset.fingerprint(copy) != before
