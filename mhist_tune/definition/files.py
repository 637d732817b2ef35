"""The files of study definitions: those in the package, finding one by name or path, and reading its text."""

from pathlib import Path

from mhist_tune.definition import schema
from mhist_tune.errors import UsageError, did_you_mean
from mhist_tune.reading import open_file

_MOST_BYTES = 1_000_000


def packaged() -> dict[str, Path]:
    """Return the paths of the packaged definitions by name, from the installed package or the source checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "studies" if (package / "studies").is_dir() else package.parent / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name_or_path: str | Path) -> Path:
    """Return the path of a packaged definition or of a file.

    Raises:
        UsageError: there is no such definition or file.
    """
    known = packaged()
    if not schema.NAME.fullmatch(str(name_or_path)):
        try:
            is_there = Path(name_or_path).exists()
        except (OSError, ValueError):  # a name that is too long for a file, or with a NUL
            is_there = False
        if not is_there:
            raise UsageError(f"there is no study definition file {name_or_path}")
        return Path(name_or_path)
    if name_or_path not in known:
        raise UsageError(
            f'there is no study definition "{name_or_path}"{did_you_mean(str(name_or_path), known)}',
            hint=f"packaged are {', '.join(known)}; for a file of your own give its path, ending in .toml",
        )
    return known[str(name_or_path)]


def text_of(path: Path) -> str:
    """Return the text of a definition.

    Raises:
        UsageError: the file cannot be read, is too large or is not UTF-8.
    """
    hint = None
    try:
        with open_file(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return content.decode("utf-8-sig")
        fault = f"it is larger than {_MOST_BYTES / 1e6:.0f} MB"
    except UnicodeDecodeError as error:
        fault, hint = f"it is not UTF-8 ({error.reason} at byte {error.start})", "save it with the encoding UTF-8"
    except OSError as error:
        fault = error.strerror or str(error)
    raise UsageError(f"cannot read the study definition {path}: {fault}", hint=hint)
