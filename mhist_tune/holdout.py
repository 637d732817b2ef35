"""The single loader of the test partition. Only `open_test`, which records an opening, and `retrain` may import it."""

from pathlib import Path

from mhist_tune.annotations import read_annotations
from mhist_tune.dataset import ImageSet, content_fingerprint, decode_cached


def load_test(root: Path, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return the test partition at ``image_size`` px, decoding it into ``cache_dir`` if that was not done yet.

    Raises:
        DataError: the table or a test image is missing or damaged.
        StorageError: the cache cannot be written.
    """
    return decode_cached(read_annotations(root, "test"), image_size=image_size, cache_dir=cache_dir)


def test_fingerprint(root: Path) -> str:
    """Return the sha256 (hex) of the test rows of the table and of the bytes of the test images.

    Raises:
        DataError: the table or a test image is missing or damaged.
    """
    return content_fingerprint(read_annotations(root, "test"))
