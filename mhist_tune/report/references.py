"""Published results on MHIST, to compare a study with. They are in `published.toml`, with their protocols and flaws."""

import functools
import tomllib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reference:
    """One published result; a number is None where its source does not state it.

    Attributes:
        n_seeds: trainings that the numbers are means over.
        f1: of SSA.
        remark: flaws of the protocol.
        year: of the publication.
        where: its address.
        training: what was trained: all layers, some layers, or a linear head on frozen features.
    """

    source: str
    model: str
    _: KW_ONLY
    n_seeds: int | None = None
    auroc: float | None = None
    auroc_std: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    remark: str = ""
    balanced_accuracy: float | None = None
    balanced_accuracy_std: float | None = None
    year: int | None = None
    where: str = ""
    training: str = ""


@functools.cache
def published() -> tuple[Reference, ...]:
    """Return all published results, in the order of the file. What a source says is said of each of its results."""
    content = tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))
    references: list[Reference] = []
    for source in content["source"]:
        common = {name: value for name, value in source.items() if name not in ("name", "result")}
        references += [Reference(source["name"], **(common | result)) for result in source["result"]]
    return tuple(references)
