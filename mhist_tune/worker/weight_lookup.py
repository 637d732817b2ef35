"""The weight files of a study on this machine, found by their content."""

from collections.abc import Sequence
from pathlib import Path

from mhist_tune.errors import DataError, UsageError
from mhist_tune.storage.studies import Study
from mhist_tune.training import weight_files


def find(study: Study, given: Sequence[Path] = ()) -> dict[str, str]:
    """Return where each weight file of a study is here, by the name that the study has for it.

    The values are names with a hash: the content is compared at every load (`weight_files`).

    Args:
        study: the study.
        given: files of this machine. One with the content of the study's file takes its place, whatever its name.

    Raises:
        DataError: no file with that content is at any of these places.
    """
    found = {}
    for name, sha256 in study.dataset.get("weight_files", {}).items():
        looked_at = []
        stored = weight_files.path_of(name)
        for path in (*given, stored):
            if path.suffix != stored.suffix:  # which decides how timm reads it
                looked_at.append(f"{path.absolute()} does not end with {stored.suffix}")
                continue
            try:
                is_it = weight_files.sha256_of(str(path)) == sha256
                looked_at.append(f"{path.absolute()} is another file")
            except UsageError as error:
                is_it = False
                looked_at.append(str(error))
            if is_it:
                found[name] = weight_files.pinned(path.absolute(), sha256)
                break
        else:
            raise DataError(
                f"the weight file of {study.name} is not here: {'; '.join(looked_at)}",
                hint=f"give the file whose SHA-256 is {sha256}: --weights FILE.safetensors",
            )
    return found
