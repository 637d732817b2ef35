"""The only loader of the test partition.

Only `actions.open_test`, which records each opening, and `worker.stages.retrain` may import it.
"""

from pathlib import Path

from mhist_tune.data.annotations import read_annotations
from mhist_tune.data.cache import content_fingerprint, decode_cached, file_hashes
from mhist_tune.data.images import ImageSet
from mhist_tune.errors import DataError


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


def read_all(root: Path, *, image_size: int, cache_dir: Path) -> str:
    """Read and decode every test image, and return the fingerprint of all.

    Raises:
        DataError: the annotations or a test image are missing or damaged, or a test image is the same file as a train
            image.
        StorageError: the cache cannot be written.
    """
    test = read_annotations(root, "test")
    in_training = set(file_hashes(read_annotations(root, "train")))
    copies = [name for name, digest in zip(test.names, file_hashes(test), strict=True) if digest in in_training]
    if copies:
        raise DataError(
            f"{len(copies)} test images under {root} are the same files as train images, first {copies[0]}",
            hint=f"mhist-tune data check {root} lists them",
        )
    decode_cached(test, image_size=image_size, cache_dir=cache_dir)
    return content_fingerprint(test)
