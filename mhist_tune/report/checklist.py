"""Reporting checklists, and what of each a report answers. Their items are in `checklists/*.toml`."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mhist_tune.definition.about import DATA_FACTS, STUDY_FACTS
from mhist_tune.report import about
from mhist_tune.report.about import About

_FOLDER = Path(__file__).parent / "checklists"

State = Literal["in the report", "in part", "by the author", "does not apply"]


@dataclass(frozen=True)
class Item:
    """An item of a checklist.

    Attributes:
        number: as in the checklist, such as "12c".
        asks: what it asks for, in our words.
        sections: titles of the report's sections that answer it; a report may lack any.
        about: facts that answer it, which only the author has.
        author: what the author must add in any case; None for nothing.
        not_applicable: why the item does not apply to images that a model classifies; None if it does.
    """

    number: str
    topic: str
    asks: str
    sections: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    author: str | None = None
    not_applicable: str | None = None


@dataclass(frozen=True)
class Checklist:
    """A reporting checklist.

    Attributes:
        key: names it on the command line.
        source: as a citation.
        wording: whose words the items are.
    """

    key: str
    name: str
    version: str
    source: str
    url: str
    wording: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Answer:
    """What a report says to one item.

    Attributes:
        sections: titles of sections that the report has.
        author: what the author must add, one text each.
        remark: why the item does not apply; None if it does.
    """

    number: str
    topic: str
    asks: str
    state: State
    sections: list[str]
    author: list[str]
    remark: str | None


@dataclass(frozen=True)
class AnsweredChecklist:
    """A checklist with the answers of the report of a study."""

    checklist: str
    name: str
    version: str
    source: str
    url: str
    wording: str
    study: str
    items: list[Answer]


def keys() -> list[str]:
    """Return the keys of the checklists. Reads file names alone."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(key: str) -> Checklist:
    """Return a checklist.

    Raises:
        FileNotFoundError: there is no such checklist.
    """
    content = tomllib.loads((_FOLDER / f"{key}.toml").read_text(encoding="utf-8"))
    items = tuple(map(_item, content.pop("item")))
    return Checklist(key, **content, items=items)


def answered(checklist: Checklist, study: str, facts: About, sections: Collection[str]) -> AnsweredChecklist:
    """Return a checklist with answers.

    Args:
        checklist: the checklist.
        study: its name.
        facts: what the author says.
        sections: titles of the sections that the report has.
    """
    return AnsweredChecklist(
        checklist=checklist.key,
        name=checklist.name,
        version=checklist.version,
        source=checklist.source,
        url=checklist.url,
        wording=checklist.wording,
        study=study,
        items=[_answer(item, facts, sections) for item in checklist.items],
    )


def counts(document: AnsweredChecklist) -> dict[State, int]:
    """Return how many items are in each state."""
    states: tuple[State, ...] = ("in the report", "in part", "by the author", "does not apply")
    return {state: sum(item.state == state for item in document.items) for state in states}


def _item(table: Mapping[str, Any]) -> Item:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return Item(**fields)


def _answer(item: Item, facts: About, sections: Collection[str]) -> Answer:
    found = [title for title in item.sections if title in sections]
    given = [name for name in item.about if name in facts.given]
    if given:
        found.append(about.TITLE)
    says: Mapping[str, str] = {**STUDY_FACTS, **DATA_FACTS}
    missing = [f"{name}: {says[name]}" for name in item.about if name not in facts.given]
    if item.author:
        missing.append(item.author)
    if not found and not missing and not item.not_applicable:
        missing.append(f"this report has no section on it (of other studies it is {', '.join(item.sections)})")
    return Answer(item.number, item.topic, item.asks, _state(item, found, missing), found, missing, item.not_applicable)


def _state(item: Item, found: list[str], missing: list[str]) -> State:
    if item.not_applicable:
        return "does not apply"
    if not missing:
        return "in the report"
    return "in part" if found else "by the author"
