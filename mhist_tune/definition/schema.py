"""The tables of a study definition, their keys and ranges, and the checks that find every problem in a file.

This module only checks. `study_file` builds a `StudyDefinition` from the checked content.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from mhist_tune.definition import about, table_rows
from mhist_tune.definition import space as spaces
from mhist_tune.definition.hyperparameters import FIELDS, check
from mhist_tune.definition.rungs import LEFT_OUT
from mhist_tune.definition.scores import SCORE_NAMES, At
from mhist_tune.definition.space import Dimension
from mhist_tune.definition.table_rows import PER_STUDY, TableRow
from mhist_tune.definition.value_checks import problem_of, quoted
from mhist_tune.errors import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LONGEST_NAME = 200  # it begins names of files, which have at most 255 characters
"""A valid study name."""

MOST_TRIALS = 100_000
"""The largest budget of a study."""

_LONGEST_NAME = 100
_LONGEST_LABEL = 200
_MOST_ENTRIES = 1000
_MOST_KEYS = 1000
_TABLES = ("study", "fixed", "space", "start", "row", "confirm", "about")


@dataclass(frozen=True, slots=True)
class _Option:
    """One key of `[study]`, `[confirm]`, a sampler or a pruner.

    Attributes:
        kind: bool, int, float or str.
        default: None if the key must be given.
        low, high: inclusive bounds; None if there is no bound.
        choices: the legal values; None if the other attributes decide.
    """

    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with `value`; None if it is legal."""
        problem = problem_of(self.kind, value, self.low, self.high)
        if problem is None and self.choices is not None and value not in self.choices:
            return f'must be one of {", ".join(self.choices)}, got "{value}"'
        return problem


STUDY_OPTIONS = {
    "n_trials": _Option(int, None, low=1, high=MOST_TRIALS),
    "split_seed": _Option(int, 0, low=0),
    "val_fraction": _Option(float, 0.2, low=0.05, high=0.5),
    "score": _Option(str, "f1", choices=tuple(SCORE_NAMES)),
    "at": _Option(str, "best", choices=get_args(At)),
    "smoothing": _Option(int, 1, low=1, high=100),
    "lease_s": _Option(float, 60.0, low=0.1, high=3600),
}
# Keys of a search that may be left out; they are None then. `max_hours` bounds the device hours of search, confirm and
# retraining; to fit them, the number of epochs may be lowered as far as `min_epochs`.
BUDGET_OPTIONS = {"max_hours": _Option(float, None, low=1e-6, high=1e6), "min_epochs": _Option(int, None, low=1)}
N_SEEDS = _Option(int, 3, low=1, high=1000)
# The best `top` trials and the study's default are trained again with cross-validation, before one of them is chosen.
# `race_level` bounds the probability that the race drops the best of them; with 0 all are trained on all folds.
CONFIRM_OPTIONS = {
    "top": _Option(int, 3, low=1, high=20),
    "n_folds": _Option(int, 5, low=2, high=20),
    "race_level": _Option(float, 0.0, low=0, high=0.5),
}
_SAMPLERS = {
    "tpe": {"n_startup_trials": _Option(int, 10, low=1), "n_ei_candidates": _Option(int, 24, low=1)},
    "random": {},
    "qmc": {"scramble": _Option(bool, True)},
    "gp": {"n_startup_trials": _Option(int, 10, low=1)},
}
_SEED = {"seed": _Option(int, 0, low=0)}
# The share of trials that are never pruned, so that a report can estimate what pruning cost.
_AUDIT = {"audit": _Option(float, 0.0, low=0, high=0.5)}
# A trial goes on if it is among the best `percentile` percent (median: 50) of at least n_startup_trials trials. The
# first n_warmup_epochs are not judged.
_PERCENTILE = {"n_startup_trials": _Option(int, 5, low=1), "n_warmup_epochs": _Option(int, 3, low=0), **_AUDIT}


def _halving(reduction_factor: int) -> dict[str, _Option]:
    rungs = {"min_resource": _Option(int, 1, low=1), "reduction_factor": _Option(int, reduction_factor, low=2)}
    return {**rungs, **_AUDIT}


_PRUNERS: dict[str, dict[str, _Option]] = {
    "none": {},
    "median": _PERCENTILE,
    "percentile": {"percentile": _Option(float, 25.0, low=0, high=100), **_PERCENTILE},
    "successive_halving": _halving(4),
    # Successive halving in which trials wait at a rung and may be promoted later; see `promotion`.
    "promotion": {
        **_halving(3),
        "min_resource": _Option(int, LEFT_OUT, low=1),
        "max_resource": _Option(int, LEFT_OUT, low=1),  # no rung is above this epoch
    },
    "hyperband": _halving(3),
}
_CMA_ES = "cma-es is not supported: it draws every field with choices at random; use tpe"


@dataclass(frozen=True, slots=True)
class Content:
    """The checked content of a definition. Options of `[study]` have their defaults, hyperparameters are as written.

    Attributes:
        study: the arguments of `StudyDefinition` that `[study]` gives.
        fixed: `[fixed]`.
        space: `[space]`.
        start: the `[[start]]` entries.
        rows: the `[[row]]` entries.
        confirm: `[confirm]` with its defaults; None if the definition has no such table.
        about: `[about]`, see `about`.
    """

    study: dict[str, Any]
    fixed: dict[str, Any]
    space: dict[str, Dimension]
    start: list[dict[str, Any]]
    rows: list[TableRow]
    confirm: dict[str, Any] | None
    about: dict[str, Any]


def read(tables: Mapping[str, Any]) -> tuple[Content, list[str]]:
    """Return the content of the tables and all problems, one text each. Only without problems is the content complete.

    Args:
        tables: the definition, as TOML or JSON gives it.
    """
    problems = [f'unknown table "{name}"{did_you_mean(name, _TABLES)}' for name in tables if name not in _TABLES]
    rows = table_rows.read(tables.get("row", []), problems)
    options = _table(tables, "study", problems)
    study = _study_of_rows(options, len(rows), problems) if rows else _study(options, problems)
    fixed = _fixed(_table(tables, "fixed", problems), problems)
    written = _table(tables, "space", problems)
    space = _space(written, problems)
    problems += [f"{name} is in both [fixed] and [space]; keep one" for name in fixed if name in written]
    start = _start(tables.get("start", []), fixed, written, space, problems)
    if rows and (written or start):
        problems.append("[[row]] entries replace a search: remove [space] and [[start]]")
    elif not rows and not written and study["n_trials"] not in (None, 1):
        problems.append("[space] is empty, so all trials would be the same: add fields to search, or [[row]] entries")
    confirm = _confirm(tables, bool(rows), bool(start), problems)
    facts = _table(tables, "about", problems)
    problems += about.problems(facts)
    return Content(study, fixed, space, start, rows, confirm, facts), problems


def creation_problems(content: Content) -> list[str]:
    """Return the problems that refuse a new definition but not a stored one: its size, or a pruner that starves it."""
    problems = [
        f"[study] {key} has {len(content.study[key])} characters, and files named after it at most {_LONGEST_NAME}"
        for key in ("name", "comparison")
        if isinstance(content.study.get(key), str) and len(content.study[key]) > _LONGEST_NAME
    ]
    for what, entries in (("[[start]] entries", content.start), ("[[row]] entries", content.rows)):
        if len(entries) > _MOST_ENTRIES:
            problems.append(f"{len(entries):,} {what}, and at most {_MOST_ENTRIES:,} are possible")
    problems += [
        f"[[row]] {number}: label must be one line of printable text of at most {_LONGEST_LABEL} characters"
        for number, row in enumerate(content.rows, 1)
        if not row.label.isprintable() or len(row.label) > _LONGEST_LABEL
    ]
    if (content.study["sampler"].get("name"), content.study["pruner"].get("name")) == ("gp", "promotion"):
        problems.append(
            "[study] sampler gp learns from complete trials only, and with the pruner promotion too few are complete: "
            'it would draw at random. Use another sampler, or a pruner such as { name = "none" }'
        )
    return problems


def _table(tables: Mapping[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    table = tables.get(name, {})
    if isinstance(table, dict) and len(table) > _MOST_KEYS:
        problems.append(f"[{name}] has {len(table):,} keys, and at most {_MOST_KEYS} are possible")
        return {}
    if isinstance(table, dict):
        return table
    problems.append(f"[{name}] must be a table, got {quoted(table)}")
    return {}


def _study(table: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    budget = _own(table, BUDGET_OPTIONS)
    if "min_epochs" in budget and "max_hours" not in budget:
        problems.append("[study] min_epochs is how far max_hours may lower the number of epochs: add max_hours")
    return {
        **_named(table, {**STUDY_OPTIONS, **BUDGET_OPTIONS, "sampler": None, "pruner": None}, problems),
        **_options(_own(table, STUDY_OPTIONS), STUDY_OPTIONS, "[study]", problems),
        **dict.fromkeys(BUDGET_OPTIONS),
        **_options(budget, {key: BUDGET_OPTIONS[key] for key in budget}, "[study]", problems),
        "n_seeds": 1,
        "sampler": _choice(table.get("sampler", {"name": "tpe"}), "sampler", _SAMPLERS, _SEED, problems),
        "pruner": _choice(table.get("pruner", {"name": "promotion"}), "pruner", _PRUNERS, {}, problems),
    }


def _study_of_rows(table: dict[str, Any], n_rows: int, problems: list[str]) -> dict[str, Any]:
    """Read `[study]` of a table. Its budget is one slot for each row and seed, or `n_trials` if that is lower."""
    problems += [
        f"[study] {key} is for a search, and the definition has [[row]] entries: remove it"
        for key in ("sampler", "pruner", *BUDGET_OPTIONS)
        if key in table
    ]
    known = {**STUDY_OPTIONS, "n_seeds": N_SEEDS}
    own = _own(table, known)
    n_seeds = own.get("n_seeds", N_SEEDS.default)
    n_slots = n_rows * n_seeds if N_SEEDS.problem(n_seeds) is None else 1
    values = _options({"n_trials": n_slots, **own}, known, "[study]", problems)
    if values["n_trials"] > n_slots:
        problems.append(f"[study] n_trials {values['n_trials']} is above {n_rows} rows x {n_seeds} seeds")
    return {
        **_named(table, {**known, **BUDGET_OPTIONS, "sampler": None, "pruner": None}, problems),
        **values,
        **dict.fromkeys(BUDGET_OPTIONS),
        "sampler": {},
        "pruner": {"name": "none"},
    }


def _own(table: Mapping[str, Any], known: Mapping[str, _Option]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key in known}


def _named(table: Mapping[str, Any], known: Mapping[str, object], problems: list[str]) -> dict[str, Any]:
    """Return the names of the study and of its comparison. One that is not valid and unknown keys are problems."""
    name = table.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fault = "is missing" if name is None else f"{quoted(name)} is not valid"
        problems.append(f"[study] name {fault}: use letters, digits, _ and -, starting with a letter or a digit")
    elif len(name) > _LONGEST_NAME:
        problems.append(f"[study] name has {len(name)} characters, at most {_LONGEST_NAME} are possible")
    comparison = table.get("comparison")
    if comparison is not None and (not isinstance(comparison, str) or not NAME.fullmatch(comparison)):
        problems.append(f"[study] comparison {quoted(comparison)} is not valid: use letters, digits, _ and -")
    names = {**known, "name": None, "comparison": None}
    problems += [f'[study] unknown key "{key}"{did_you_mean(key, names)}' for key in table if key not in names]
    return {"name": name, "comparison": comparison}


def _choice(
    table: object,
    kind: str,
    known: Mapping[str, Mapping[str, _Option]],
    common: Mapping[str, _Option],
    problems: list[str],
) -> dict[str, Any]:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        problems.append(
            f'[study] {kind} must be a table such as {{ name = "{next(iter(known))}" }}, got {quoted(table)}'
        )
        return {}
    name = table["name"]
    if kind == "sampler" and name.replace("-", "").replace("_", "").lower() in ("cmaes", "cma"):
        problems.append(f"[study] {_CMA_ES}")
        return {}
    if name not in known:
        problems.append(f'[study] unknown {kind} "{name}"{did_you_mean(name, known)}; known are {", ".join(known)}')
        return {}
    options = {key: value for key, value in table.items() if key != "name"}
    return {"name": name, **_options(options, {**common, **known[name]}, f"[study] {kind} {name}:", problems)}


def _options(table: Mapping[str, Any], known: Mapping[str, _Option], where: str, problems: list[str]) -> dict[str, Any]:
    problems += [f'{where} unknown key "{key}"{did_you_mean(key, known)}' for key in table if key not in known]
    problems += [f"{where} {key} is missing" for key in known if known[key].default is None and key not in table]
    values = {key: table.get(key, option.default) for key, option in known.items()}
    for key, value in table.items():
        if key in known and (problem := known[key].problem(value)):
            problems.append(f"{where} {key} {problem}")
        elif key in known:
            values[key] = known[key].kind(value)
    return values


def _fixed(table: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    problems += [_at("[fixed]", name, problem) for name, value in table.items() if (problem := check(name, value))]
    return {name: value for name, value in table.items() if not check(name, value)}


def _space(table: dict[str, Any], problems: list[str]) -> dict[str, Dimension]:
    space = {}
    for name, entry in table.items():
        if name in PER_STUDY:
            problems.append(_at("[space]", name, "has one value for the whole study; put it in [fixed]"))
            continue
        if name in ("model", "weights"):
            problems.append(_at("[space]", name, "cannot be searched; put it in [fixed], or in [[row]] entries"))
            continue
        try:
            space[name] = spaces.parse(name, entry)
        except ValueError as error:
            problems.append(_at("[space]", name, str(error)))
    return space


def _start(
    entries: object,
    fixed: Mapping[str, Any],
    written: Mapping[str, Any],
    space: Mapping[str, Dimension],
    problems: list[str],
) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append("start must be written as tables, each under [[start]]")
        return []
    for i, entry in enumerate(entries, 1):
        for name, value in entry.items():
            problem = check(name, value)
            if problem is None and name not in written:
                origin = "[fixed]" if name in fixed else "the package's default"
                problem = f"is not in [space]: every trial has the value of {origin}"
            elif problem is None and name in space and not space[name].contains(spaces.normalize(name, value)):
                problem = f"{quoted(value)} is outside its space, {space[name]}"
            if problem:
                problems.append(_at(f"[[start]] {i}:", name, problem))
    return entries


def _confirm(tables: Mapping[str, Any], has_rows: bool, has_start: bool, problems: list[str]) -> dict[str, Any] | None:
    if "confirm" not in tables:
        return None
    if has_rows:
        problems.append("[confirm] is for a search, and rows are compared over their seeds: remove it")
    elif not has_start:
        problems.append("[confirm] needs the study's default, which is the first [[start]]: add one")
    return _options(_table(tables, "confirm", problems), CONFIRM_OPTIONS, "[confirm]", problems)


def _at(where: str, name: str, problem: str) -> str:
    return f"{where} {problem}" if name not in FIELDS else f"{where} {name}: {problem}"
