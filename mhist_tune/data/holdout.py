"""The only loader of the test partition.

Only `actions.open_test`, which records each opening, and `worker.stages.retrain` may import it.
"""

from pathlib import Path

from mhist_tune.data.annotations import read_annotations
from mhist_tune.data.cache import content_fingerprint, decode_cached
from mhist_tune.data.images import ImageSet


def load_test(root: Path, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return the images of the test partition, square with a side of ``image_size`` px.

    Args:
        root: folder of the data set.
        image_size: side length in pixels.
        cache_dir: folder of decoded images; missing ones are decoded into it.

    Raises:
        DataError: the annotations or a test image are missing or damaged.
        StorageError: the cache cannot be written.
    """
    return decode_cached(read_annotations(root, "test"), image_size=image_size, cache_dir=cache_dir)


def test_fingerprint(root: Path) -> str:
    """Return the SHA-256 (hex) of the test rows of the annotations and of the bytes of the test images.

    Raises:
        DataError: the annotations or a test image are missing or damaged.
    """
    return content_fingerprint(read_annotations(root, "test"))
