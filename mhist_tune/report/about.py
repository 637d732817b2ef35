"""What the author says of a study and of its data, and what is missing. Recorded at creation, or given for a report."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhist_tune.data import description
from mhist_tune.definition import about
from mhist_tune.definition.about import DATA_FACTS, RATES, STUDY_FACTS
from mhist_tune.errors import UsageError
from mhist_tune.reading import read_file
from mhist_tune.storage.studies import Study
from mhist_tune.words import Rows, shortest

TITLE = "About the study and its data"
_FOR_THIS_REPORT = "for this report"


@dataclass(frozen=True)
class Fact:
    """A fact that only the author has.

    Attributes:
        of: study or data set.
        says: what the fact says, as the end of a sentence.
        value: as given; None where it is not.
        recorded: at creation, or for this report; None where it is not given.
    """

    name: str
    of: str
    says: str
    value: str | float | None
    recorded: str | None


@dataclass(frozen=True)
class About:
    """All facts that only the author has, given or not."""

    facts: list[Fact]

    @property
    def given(self) -> dict[str, str | float]:
        """The facts that are given, by name."""
        return {fact.name: fact.value for fact in self.facts if fact.value is not None}

    def text(self, name: str) -> str | None:
        """The text of a fact; None where it is not given."""
        value = self.given.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> float | None:
        """The number of a fact; None where it is not given."""
        value = self.given.get(name)
        return None if value is None or isinstance(value, str) else value

    @property
    def missing(self) -> list[str]:
        """The names of the texts that are not given. No report needs a price or a carbon intensity."""
        optional = {*RATES, "currency"}
        return [fact.name for fact in self.facts if fact.value is None and fact.name not in optional]


def read(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the facts in files: each is a definition with `[about]`, or a description such as `dataset.toml`.

    Raises:
        UsageError: a file cannot be read, or has a fact that is unknown or has a wrong value.
    """
    given: dict[str, Any] = {}
    for path in paths:
        try:
            tables = tomllib.loads(read_file(path).decode("utf-8-sig"))
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise UsageError(f"cannot read {path}: {reason}") from error
        facts = tables.get("about", tables)
        if not isinstance(facts, dict):
            raise UsageError(f"{path}: [about] must be a table")
        if found := (about if "about" in tables else description).problems(facts):
            raise UsageError(
                f"{path}: {'; '.join(found)}",
                hint="docs/guide/checklists.md lists the facts of a study and of its data",
            )
        given |= facts
    return given


def document(study: Study, given: Mapping[str, Any]) -> About:
    """Return every fact of a study and of its data.

    Args:
        study: with what was recorded at its creation.
        given: for this report, as from `read`; replaces what was recorded.
    """
    recorded = {**(study.dataset.get("description") or {}), **study.definition.about}
    says_by_kind = {"study": {**STUDY_FACTS, **RATES}, "data set": DATA_FACTS}
    return About(
        [
            _fact(name, kind, says, recorded, given)
            for kind, facts in says_by_kind.items()
            for name, says in facts.items()
        ]
    )


def given_for(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that were given for a report, from its JSON document; of an older version, none."""
    facts = report.get("about", {}).get("facts", ())
    return {fact["name"]: fact["value"] for fact in facts if fact["recorded"] == _FOR_THIS_REPORT}


def rows(facts: About) -> Rows:
    """Return the facts that are given, then the names of those that are not."""
    table = [["fact", "as the author gives it"]]
    table += [
        [_title(name), value if isinstance(value, str) else shortest(value)] for name, value in facts.given.items()
    ]
    if facts.missing:
        table.append(["not given", ", ".join(map(_title, facts.missing))])
    return table


def _fact(name: str, kind: str, says: str, recorded: Mapping[str, Any], given: Mapping[str, Any]) -> Fact:
    for facts, when in ((given, _FOR_THIS_REPORT), (recorded, "at creation")):
        if facts.get(name) not in (None, ""):
            return Fact(name, kind, says, facts[name], when)
    return Fact(name, kind, says, None, None)


def _title(name: str) -> str:
    return name.replace("_", " ")
