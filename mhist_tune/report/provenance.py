"""The warnings of the check of a study's data, and the versions of the code that trained it."""

from dataclasses import dataclass
from typing import Any

from mhist_tune.report import status
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study
from mhist_tune.words import one_line

TITLE = "Data and code of the study"


@dataclass(frozen=True)
class Provenance:
    """What was recorded of data and code.

    Attributes:
        data_warnings: of the check of the data set when the study was created; None where they were not recorded.
        code_versions: that trained the study, the first worker's first; empty where they were not recorded.
    """

    data_warnings: list[str] | None
    code_versions: list[str]


def document(storage: Storage, study: Study) -> Provenance:
    """Return what was recorded of the data and of the code of a study."""
    warnings: Any = study.dataset.get("warnings")
    return Provenance(warnings, status.code_versions(storage, study))


def lines(provenance: Provenance) -> list[str]:
    """Return the warnings and the versions, one sentence each."""
    warnings = provenance.data_warnings
    if warnings is None:
        found = ["Whether the check of the data set gave warnings is not recorded."]
    elif warnings:
        found = [f"Warning of the check of the data set: {one_line(warning)}." for warning in warnings]
    else:
        found = ["The check of the data set at the creation of the study gave no warning."]
    versions = ", ".join(provenance.code_versions)
    return [*found, f"Trained by mhist-tune {versions}." if versions else "The version of the code is not recorded."]


def caveats(provenance: Provenance) -> list[str]:
    """Return a caveat where several versions of the code trained a study."""
    if len(provenance.code_versions) < 2:
        return []
    return [
        f"Different versions of the code trained this study ({', '.join(provenance.code_versions)}), so trials may "
        "differ for that reason alone."
    ]
