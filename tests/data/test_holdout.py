"""The test partition comes from one loader, with a fingerprint of its own."""

from pathlib import Path

import pytest

from mhist_tune.data import cache, holdout
from mhist_tune.data.annotations import read_annotations
from mhist_tune.data.synthesize import synthesize
from mhist_tune.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    synthesize(tmp_path / "data", n_images=24, image_size=24)
    return tmp_path / "data"


def test_it_hands_out_the_test_rows_and_no_train_row(root: Path, tmp_path: Path) -> None:
    """Train and test share the cache folder and no image."""
    test = holdout.load_test(root, image_size=24, cache_dir=tmp_path / "cache")
    train = cache.load_train(root, image_size=24, cache_dir=tmp_path / "cache")
    assert test.names == read_annotations(root, "test").names
    assert test.labels.tolist() == read_annotations(root, "test").labels.tolist()
    assert set(test.names).isdisjoint(train.names)
    assert test.images.shape == (7, 3, 24, 24)


def test_its_fingerprint_follows_test_images_only(root: Path) -> None:
    """A changed train image leaves it, a changed test image changes it, a missing one is an error."""
    before = holdout.test_fingerprint(root)
    assert before != cache.fingerprint(root)
    with read_annotations(root, "train").paths[0].open("ab") as file:
        file.write(b"\0")
    assert holdout.test_fingerprint(root) == before
    path = read_annotations(root, "test").paths[0]
    with path.open("ab") as file:
        file.write(b"\0")
    assert holdout.test_fingerprint(root) != before
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        holdout.test_fingerprint(root)
