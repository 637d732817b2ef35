"""Sets of images: subsets that share pixels, batches, and what moves to a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mhist_tune.data.cache import load_train
from mhist_tune.data.images import MAX_SHARE
from mhist_tune.data.synthesize import synthesize

SIZE = 24


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 24 images."""
    synthesize(tmp_path / "data", n_images=24, image_size=SIZE)
    return tmp_path / "data"


def test_take_keeps_everything_aligned(root: Path, tmp_path: Path) -> None:
    """Any order and repeats: pixels, labels, votes and names of the chosen images, without touching the cache."""
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    some = train.take([3, 0, 3])
    assert len(some) == 3
    assert some.names == (train.names[3], train.names[0], train.names[3])
    assert torch.equal(some.images[1], train.images[0])
    assert some.votes.tolist() == [int(train.votes[index]) for index in (3, 0, 3)]
    assert some.groups is None
    some.images.zero_()
    assert train.images[3].any()


def test_a_batch_leaves_no_page_of_the_file_with_the_process(root: Path, tmp_path: Path) -> None:
    """A subset copies no image; what a batch read of the cache file is given back and can be read again."""
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.npy")
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
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path)
    some = train.take([5, 3, 8, 1, 0, 9]).take([4, 0, 0, 2, 1])

    batches = list(some.split(n))

    assert some.names == tuple(train.names[index] for index in (0, 5, 5, 8, 3))
    assert [len(batch) for batch in batches] == [len(batch) for batch in some.images.split(n)]
    assert torch.equal(torch.cat(batches), train.images[[0, 5, 5, 8, 3]])


def test_images_that_a_gpu_has_no_room_for_stay_where_they_are(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are then read into page-locked memory, batch by batch; on the CPU the set is itself."""
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path).take([1, 3, 4, 7])
    n_bytes, pinned, empty = 4 * 3 * SIZE * SIZE, list[bool](), torch.empty
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (n_bytes / MAX_SHARE - 1, 2**40))

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
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path)
    moved = train.take([1, 3, 4]).to(torch.device("meta"))

    assert (moved.pixels.device.type, moved.pixels.shape) == ("meta", (3, 3, SIZE, SIZE))
    assert moved.rows is None
    assert moved.to(torch.device("meta")) is moved
    assert moved.take([2, 1]).images.shape == (2, 3, SIZE, SIZE)


def test_what_stays_is_asked_for_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of images that stayed stays as well, however much room there is by then: no trial moves it again."""
    train = load_train(root, image_size=SIZE, cache_dir=tmp_path)
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
