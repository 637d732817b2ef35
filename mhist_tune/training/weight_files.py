"""The weight files of a run: where they are, which content they must have, and whether a model can be trained from it.

A run may load two files: `weights`, and timm's own option `checkpoint_path` in `model_options`. A name that ends with
`#sha256:HEX` names a content, too: it is compared at every load.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from mhist_tune.definition.field_checks import SHA256_MARK
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.reading import open_file

CHECKPOINT_PATH = "checkpoint_path"
_SOURCES = {"file", "url", "hf_hub_id", "hf_hub_filename", "state_dict"}  # in timm's configuration of a model
WEIGHTS_HINT = "create the study with the weights as a file: --weights FILE.safetensors"


def names(hp: Hyperparameters) -> list[str]:
    """Return the weight files that a run loads, as its hyperparameters name them."""
    found = [] if hp.weights in ("pretrained", "random") else [hp.weights]
    checkpoint = hp.model_options.get(CHECKPOINT_PATH)
    return [*found, checkpoint] if isinstance(checkpoint, str) and checkpoint else found


def renamed(hp: Hyperparameters, new_names: Mapping[str, str]) -> Hyperparameters:
    """Return hyperparameters with other names of their weight files."""
    options = dict(hp.model_options)
    if (checkpoint := str(options.get(CHECKPOINT_PATH))) in new_names:
        options[CHECKPOINT_PATH] = new_names[checkpoint]
    return dataclasses.replace(hp, weights=new_names.get(hp.weights, hp.weights), model_options=options)


def without(hp: Hyperparameters) -> Hyperparameters:
    """Return hyperparameters of the same model that load no weights."""
    options = {name: value for name, value in hp.model_options.items() if name != CHECKPOINT_PATH}
    return dataclasses.replace(hp, weights="random", model_options=options)


def pinned(path: Path, sha256: str) -> str:
    """Return the name of a file that must have this content."""
    return f"{path}{SHA256_MARK}{sha256}"


def path_of(name: str) -> Path:
    """Return the path of a weight file."""
    return Path(name.partition(SHA256_MARK)[0])


def sha256_of(name: str) -> str:
    """Return the SHA-256 (hex) of a weight file.

    Raises:
        UsageError: the file cannot be read, or it has another content than its name says.
    """
    path, expected = path_of(name), name.partition(SHA256_MARK)[2]
    try:
        with open_file(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}: {error.strerror}", hint=WEIGHTS_HINT) from error
    if expected and found != expected:
        raise UsageError(
            f"the weights {path} were changed: their SHA-256 is {found}, not {expected}",
            hint="put back the file that the study was created with",
        )
    return found


def loadable(name: str) -> str:
    """Return the path of a weight file that is about to be loaded, after comparing its content with its name.

    Raises:
        UsageError: as in `sha256_of`.
    """
    sha256_of(name)
    return str(path_of(name))


def versions(files: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the size and the time of change of each weight file.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        stats = [path_of(name).stat() for name in files]
    except OSError as error:
        raise UsageError(f"cannot read the weights {error.filename}: {error.strerror}", hint=WEIGHTS_HINT) from error
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


def require_no_other(hp: Hyperparameters) -> None:
    """Raise UsageError if options of timm name weights that no check here would know of."""
    for option in ("pretrained_cfg", "pretrained_cfg_overlay"):
        value = hp.model_options.get(option)
        named = _SOURCES.intersection(value) if isinstance(value, Mapping) else set()
        if named:
            raise UsageError(
                f"model_options.{option} names weights by {', '.join(sorted(named))}",
                hint='name them with weights = "FILE.safetensors"',
            )


def require_tensors(path: Path, model: str, is_float: Mapping[str, bool]) -> None:
    """Raise UsageError if a safetensors file lacks tensors of a model, or has whole numbers in place of weights.

    timm would leave the missing ones random, and convert the whole numbers.

    Args:
        path: the file.
        model: the name of the model.
        is_float: the names of the model's tensors; whether each holds floating-point numbers.
    """
    try:
        open_file(path).close()
        with safe_open(path, framework="pt") as file:
            in_file = list(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in in_file}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the weights {path}: {reason_of(error)}", hint=WEIGHTS_HINT) from error
    missing = [name for name in is_float if name not in kinds and not name.endswith("num_batches_tracked")]
    if missing:
        raise UsageError(
            f"{path} does not fit {model}: {len(missing)} of {len(is_float)} tensors are missing from it, "
            f"the first is {missing[0]}",
            hint="the file must contain this model's weights under timm's names",
        )
    whole = [name for name in is_float if is_float[name] and not kinds.get(name, "F").startswith(("F", "BF"))]
    if whole:
        raise UsageError(
            f"{path} holds no weights: {whole[0]} consists of whole numbers ({kinds[whole[0]]})",
            hint="give weights in floating point; quantized weights cannot be trained",
        )


def require_finite(loaded: nn.Module, files: list[str]) -> None:
    """Raise UsageError if a model has a value that is not finite after its weight files were loaded."""
    tensors: dict[str, Any] = loaded.state_dict()
    broken = [name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()]
    if broken:
        paths = " and ".join(str(path_of(name)) for name in files)
        raise UsageError(
            f"{len(broken)} of {len(tensors)} tensors of {paths} have values that are not finite, first {broken[0]}",
            hint="every trial would diverge: give other weights",
        )


def reason_of(error: BaseException) -> str:
    """Return the line of an error that says most; torch lists the tensors that do not fit below a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[1] if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
