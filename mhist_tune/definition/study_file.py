"""Study definitions: TOML files such as `studies/*.toml`. `create-study` reads one and records it in the storage.

`[study]` gives the study's name, budget, sampler and pruner. `[fixed]` gives hyperparameters that are the same in all
trials, `[space]` those that are searched. The `[[start]]` entries are tried first, and the first one is the study's
default. `[confirm]` gives how the best trials and the default are trained again before one of them is chosen. A table
has `[[row]]` entries instead of `[space]`. Each row is trained with `n_seeds` seeds, and the first row is the default.
`[about]` says what only the author knows of the study.

All defaults are filled in when a definition is read. A stored definition therefore keeps its meaning when a later
version changes a default.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from mhist_tune.definition import changes, files, rungs, schema, table_rows
from mhist_tune.definition import space as spaces
from mhist_tune.definition.hyperparameters import FIELDS, Hyperparameters
from mhist_tune.definition.scores import SCORE_NAMES, At, Score
from mhist_tune.definition.space import Dimension
from mhist_tune.definition.table_rows import TableRow
from mhist_tune.errors import DefinitionError, UsageError

_DEEP_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){100}""")


@dataclass(frozen=True, slots=True)
class StudyDefinition:
    """One complete study. `fixed` and `space` together, or `fixed` and any row, name every hyperparameter.

    Attributes:
        name: letters, digits, `_` and `-`.
        comparison: the name of the comparison that the study belongs to; None if it belongs to none. The studies of
            one comparison may each open the same test images.
        max_hours: the budget of a search, its confirmation and its retraining, in device hours; None for no limit.
        min_epochs: `max_hours` may lower the number of epochs as far as this; None to keep it.
        n_trials: budget in trials, start entries included; for a table at most one for each row and seed.
        n_seeds: trainings of each row of a table; 1 in a search.
        sampler: `name` (tpe, random, qmc, gp), `seed` and all options of that sampler; empty for a table.
        pruner: `name` (none, median, percentile, successive_halving, hyperband, promotion) and all options of that
            pruner.
        split_seed: seed of the validation split.
        val_fraction: share of the train partition that is used for validation, 0.05 to 0.5.
        score: the validation metric that trials are pruned, ranked and chosen by.
        at: the epoch that a trial's value is taken from. With "last", every training runs all its epochs, without early
            stopping. With "best", it is the epoch with the best `monitor`.
        smoothing: a trial's value is the mean score of this many epochs, of which the epoch `at` is the last; 1 for
            the score of that epoch alone.
        lease_s: seconds without a renewal after which another worker may take a slot.
        fixed: hyperparameters with one value for all trials, JSON-safe.
        space: the searched hyperparameters.
        start: complete params of the trials that are tried first.
        rows: the rows of a table, all with the same fields; empty for a search.
        confirm: `top` (number of best trials to train again), `n_folds`, and `race_level` (0 if all of them are trained
            on all folds, else the level of `statistics.racing`); None if the best trial of the search is chosen without
            that.
        about: facts that only the author has, see `definition.about`; empty if there are none.
        text: the file, verbatim, without the changes by the command line.
        sha256: SHA-256 (hex) of the canonical JSON of `resolved()` at creation, without `about`.
    """

    name: str
    comparison: str | None
    max_hours: float | None
    min_epochs: int | None
    n_trials: int
    n_seeds: int
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    split_seed: int
    val_fraction: float
    score: Score
    at: At
    smoothing: int
    lease_s: float
    fixed: Mapping[str, Any]
    space: Mapping[str, Dimension]
    start: tuple[Mapping[str, Any], ...]
    rows: tuple[TableRow, ...]
    confirm: Mapping[str, Any] | None
    about: Mapping[str, Any]
    text: str
    sha256: str

    def hyperparameters(self, params: Mapping[str, Any]) -> Hyperparameters:
        """Return all hyperparameters of a trial with `params`.

        Raises:
            ValueError: `fixed` and `params` together are not legal hyperparameters.
        """
        return Hyperparameters.from_dict({**self.fixed, **params})

    @property
    def races(self) -> bool:
        """Whether finalists that are clearly behind stop before they are trained on all folds."""
        return self.confirm is not None and self.confirm["race_level"] > 0

    @property
    def score_name(self) -> str:
        """What the score is called in texts, such as "mean F1"."""
        return SCORE_NAMES[self.score]

    def default_params(self) -> dict[str, Any]:
        """Return the params of the study's default: the first row or start entry, else the package's defaults."""
        if self.rows:
            return dict(self.rows[0].params)
        return dict(self.start[0]) if self.start else _complete({}, self.space)

    def slot_payloads(self) -> list[dict[str, Any]]:
        """Return the payload of each slot: the params of a start entry, nothing, or a row's params with a seed.

        All rows come with one seed before the next seed starts, so that rows of an unfinished table can be compared.
        """
        payloads: list[dict[str, Any]] = [{"params": dict(entry)} for entry in self.start]
        payloads += [{}] * (self.n_trials - len(self.start))
        if self.rows:
            payloads = [
                {"label": row.label, "params": dict(row.params), "seed": seed}
                for seed in range(self.n_seeds)
                for row in self.rows
            ]
        return payloads[: self.n_trials]

    def resolved(self) -> dict[str, Any]:
        """Return the whole definition as JSON-safe tables, with every default filled in."""
        study: dict[str, Any] = {key: getattr(self, key) for key in ("name", *schema.STUDY_OPTIONS)}
        optional = ("comparison", *schema.BUDGET_OPTIONS)
        study |= {key: value for key in optional if (value := getattr(self, key)) is not None}
        tables: dict[str, Any] = {"study": study, "fixed": dict(self.fixed)}
        if self.rows:
            study["n_seeds"] = self.n_seeds
            tables["row"] = [row.to_dict() for row in self.rows]
        else:
            study |= {"sampler": dict(self.sampler), "pruner": dict(self.pruner)}
            tables["space"] = {name: dimension.to_dict() for name, dimension in self.space.items()}
            tables["start"] = [dict(entry) for entry in self.start]
        if self.confirm is not None:
            tables["confirm"] = dict(self.confirm)
        if self.about:
            tables["about"] = dict(self.about)
        return tables

    def to_json(self) -> str:
        """Return the definition as JSON, with hash and verbatim text; `from_json` reverses it."""
        return json.dumps({**self.resolved(), "text": self.text, "sha256": self.sha256}, allow_nan=False)

    @classmethod
    def from_json(cls, record: str) -> "StudyDefinition":
        """Read a stored definition. Its hash is not computed again.

        Raises:
            UsageError: another version wrote it, with content that this version does not know.
        """
        stored = json.loads(record)
        text, sha256 = stored.pop("text"), stored.pop("sha256")
        content, problems = schema.read(stored)
        if problems:
            raise UsageError(
                f'study "{stored["study"]["name"]}" was created by another version of mhist-tune: {problems[0]}',
                hint="work on it with the version that created it, or a later one",
            )
        pruner = rungs.complete(content.study["pruner"], content.fixed, content.space)
        return cls(
            **{**content.study, "pruner": pruner},
            fixed=content.fixed,
            space=content.space,
            start=tuple(content.start),
            rows=tuple(content.rows),
            confirm=content.confirm,
            about=content.about,
            text=text,
            sha256=sha256,
        )


def load(
    name_or_path: str | Path,
    *,
    n_trials: int | None = None,
    max_hours: float | None = None,
    overrides: Mapping[str, str] | None = None,
    weights: str | Path | None = None,
    start: Sequence[Mapping[str, Any]] = (),
) -> StudyDefinition:
    """Read a packaged definition or a file, and apply the changes of the command line.

    The path of a weight file starts from the folder of the definition, and is made absolute.

    Args:
        name_or_path: name of a packaged definition, such as `vit`, or the path of a `.toml` file.
        n_trials: replaces the file's budget in trials.
        max_hours: replaces the file's budget in device hours.
        overrides: hyperparameters to fix. The values are written as in TOML; a bare word is a string. Each one is
            added to `[fixed]` and removed from `[space]`, the start entries and the rows.
        weights: `pretrained`, `random` or a safetensors file. A path is made absolute, because workers may start in
            other folders. Rows with random weights are not changed.
        start: params in this space, tried after the definition's own start entries.

    Raises:
        UsageError: the definition or file does not exist or cannot be read.
        DefinitionError: the definition has problems; the message lists all of them.
    """
    path = files.find(name_or_path)
    text = files.text_of(path)
    tables = _read_toml(text, str(path))
    changes.resolve_weight_files(tables, path.parent)
    fixed = {name: changes.value_of(value) for name, value in (overrides or {}).items()}
    if "weights" in fixed:
        fixed["weights"] = changes.absolute(fixed["weights"], Path())
    if weights is not None:
        source = str(weights) if weights in ("pretrained", "random") else str(Path(weights).absolute())
        if not changes.replace_in_rows(tables, source):
            fixed["weights"] = source
    changes.fix(tables, fixed)
    budget = {"n_trials": n_trials, "max_hours": max_hours}
    if isinstance(tables.get("study"), dict):
        tables["study"] |= {key: value for key, value in budget.items() if value is not None}
    return _started_from(_build(tables, text, str(path)), start)


def parse(text: str, source: str) -> StudyDefinition:
    """Read a definition from TOML.

    Args:
        text: the TOML.
        source: name of the definition in error messages.

    Raises:
        DefinitionError: the definition has problems; the message lists all of them.
    """
    return _build(_read_toml(text, source), text, source)


def _read_toml(text: str, source: str) -> dict[str, Any]:
    try:
        if _DEEP_KEY.search(text):  # tomllib takes the square of a key's parts
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError as error:
        raise DefinitionError(source, ["not TOML that can be read: nested too deeply"]) from error
    except ValueError as error:  # also a whole number of thousands of digits
        raise DefinitionError(source, [f"not TOML: {error}"]) from error


def _build(tables: Mapping[str, Any], text: str, source: str) -> StudyDefinition:
    content, problems = schema.read(tables)
    if problems := [*problems, *schema.creation_problems(content)]:
        raise DefinitionError(source, problems)
    start = tuple(_complete(entry, content.space) for entry in content.start)
    rows: tuple[TableRow, ...] = ()
    try:
        if content.rows:
            fixed, rows = table_rows.complete(content.rows, content.fixed)
        else:
            for params in start or (_complete({}, content.space),):
                complete = Hyperparameters.from_dict({**content.fixed, **params}).to_dict()
            fixed = {name: value for name, value in complete.items() if name not in content.space}
    except ValueError as error:
        raise DefinitionError(source, str(error).splitlines()) from error
    if problems := _min_epochs_problems(content.study["min_epochs"], fixed, content.space):
        raise DefinitionError(source, problems)
    pruner = rungs.complete(content.study["pruner"], fixed, content.space)
    definition = StudyDefinition(
        **{**content.study, "pruner": pruner},
        fixed=fixed,
        space=content.space,
        start=start,
        rows=rows,
        confirm=content.confirm,
        about=content.about,
        text=text,
        sha256="",
    )
    return _hashed(definition)


def _min_epochs_problems(min_epochs: int | None, fixed: Mapping[str, Any], space: Mapping[str, Dimension]) -> list[str]:
    if min_epochs is None:
        return []
    if "epochs" in space:
        return ["[study] min_epochs is for a fixed number of epochs, and epochs is in [space]: remove it"]
    if min_epochs > fixed["epochs"]:
        return [f"[study] min_epochs {min_epochs} is above the {fixed['epochs']} epochs of a training"]
    return []


def with_epochs(definition: StudyDefinition, n_epochs: int) -> StudyDefinition:
    """Return the definition with another fixed number of epochs. Its hash and its text are kept.

    Rungs that are the defaults for the old number become those for the new one; rungs that the file gives are kept.
    """
    fixed = {**definition.fixed, "epochs": n_epochs}
    left_out = {"min_resource": rungs.LEFT_OUT, "max_resource": rungs.LEFT_OUT}
    pruner = {**definition.pruner, **(left_out if definition.pruner["name"] == "promotion" else {})}
    if rungs.complete(pruner, definition.fixed, definition.space) != definition.pruner:
        return replace(definition, fixed=fixed)
    return replace(definition, fixed=fixed, pruner=rungs.complete(pruner, fixed, definition.space))


def _hashed(definition: StudyDefinition) -> StudyDefinition:
    identity = {name: table for name, table in definition.resolved().items() if name != "about"}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return replace(definition, sha256=hashlib.sha256(canonical.encode()).hexdigest())


def _started_from(definition: StudyDefinition, params_of_trials: Sequence[Mapping[str, Any]]) -> StudyDefinition:
    """Return the definition with additional start entries."""
    if not params_of_trials:
        return definition
    start = list(definition.start) or [definition.default_params()]  # the first entry remains the default
    start += [_complete(params, definition.space) for params in params_of_trials]
    return _hashed(replace(definition, start=tuple(start)))


def _complete(entry: Mapping[str, Any], space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return an entry with a value for every dimension. A default outside the space is moved to the nearest value."""
    return {
        name: spaces.normalize(name, entry[name]) if name in entry else dimension.nearest(FIELDS[name].default)
        for name, dimension in space.items()
    }


def render(definition: StudyDefinition) -> str:
    """Return the definition as TOML, with every default filled in; `parse` reverses it."""
    return f"# sha256 {definition.sha256}\n\n{tomli_w.dumps(definition.resolved())}".rstrip("\n")
