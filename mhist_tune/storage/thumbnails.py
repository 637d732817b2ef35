"""Small copies of test images, for a report's contact sheet: one zip file for each study, in the storage folder.

They are not in the database, since it may have readers whom the agreement of the data set does not cover. A report that
is made on a machine without the file has no contact sheet.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study
from mhist_tune.writing import replaced

_SIDE, _QUALITY = 112, 80


def path_of(storage: Storage, study: Study) -> Path:
    """Return the path of the zip file of a study."""
    return storage.root / "thumbnails" / f"{study.folder_name}.zip"


def write(path: Path, names: Sequence[str], images: npt.NDArray[np.uint8]) -> None:
    """Write a zip file with a JPEG of each image, unless it exists. Only this user may read it.

    Several processes may call this at the same time.

    Args:
        path: of the zip file.
        names: of the images, [n].
        images: [n, 3, H, W] in 0 to 255.

    Raises:
        OSError: the folder cannot be written.
    """
    if path.exists():
        return
    with replaced(path, is_private=True) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, image in zip(names, images, strict=True):
            picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
            picture.thumbnail((_SIDE, _SIDE))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=_QUALITY)
            archive.writestr(name, buffer.getvalue())


def remove(storage: Storage, study: Study) -> None:
    """Remove a study's thumbnails and unfinished copies from this storage folder, if there are any.

    Raises:
        OSError: they cannot be removed.
    """
    path = path_of(storage, study)
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink(missing_ok=True)


def read(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the JPEG file of each named image. Names without one are left out."""
    if not path.exists():
        return {}
    with zipfile.ZipFile(path) as archive:
        stored = set(archive.namelist())
        return {name: archive.read(name) for name in names if name in stored}
