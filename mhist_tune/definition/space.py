"""The dimensions of a search space: the `[space]` entries of a study definition, and Optuna's distributions for them.

The type of the `Hyperparameters` field decides whether an interval holds whole numbers, not the notation of its
bounds. Fields that hold lists or tables cannot be searched, because Optuna stores choices as plain values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mhist_tune.definition.hyperparameters import FIELDS, check
from mhist_tune.definition.value_checks import is_number, quoted
from mhist_tune.errors import did_you_mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value: TypeAlias = str | int | float
"""The value of one searched hyperparameter in a trial."""

_MOST_CHOICES = 1000
_KEYS = ("low", "high", "log", "choices")


@dataclass(frozen=True, slots=True)
class Float:
    """Real numbers from `low` to `high`, both included; sampled on a logarithmic scale if `log` is true."""

    low: float
    high: float
    log: bool = False

    def distribution(self) -> "BaseDistribution":
        """Return the Optuna distribution of this dimension."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def contains(self, value: object) -> bool:
        """Return whether `value` is in this dimension."""
        return is_number(value) and self.low <= value <= self.high

    def nearest(self, value: Any) -> float:
        """Return `value`, or the nearest bound if it is outside."""
        return float(min(max(value, self.low), self.high))

    def to_dict(self) -> dict[str, Any]:
        """Return the `[space]` entry of this dimension; `parse` reverses it."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from `low` to `high`, both included; sampled on a logarithmic scale if `log` is true."""

    low: int
    high: int
    log: bool = False

    def distribution(self) -> "BaseDistribution":
        """Return the Optuna distribution of this dimension."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def contains(self, value: object) -> bool:
        """Return whether `value` is in this dimension."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def nearest(self, value: Any) -> int:
        """Return `value`, or the nearest bound if it is outside."""
        return int(min(max(value, self.low), self.high))

    def to_dict(self) -> dict[str, Any]:
        """Return the `[space]` entry of this dimension; `parse` reverses it."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of `choices`, without an order between them."""

    choices: tuple[Value, ...]

    def distribution(self) -> "BaseDistribution":
        """Return the Optuna distribution of this dimension."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)

    def contains(self, value: object) -> bool:
        """Return whether `value` is one of the choices; `True` is not the number 1."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    def nearest(self, value: Any) -> Value:
        """Return `value` if it is one of the choices, else the first choice."""
        return next((choice for choice in self.choices if choice == value), self.choices[0])

    def to_dict(self) -> dict[str, Any]:
        """Return the `[space]` entry of this dimension; `parse` reverses it."""
        return {"choices": list(self.choices)}

    def __str__(self) -> str:
        return "one of " + ", ".join(str(choice) for choice in self.choices)


Dimension: TypeAlias = Float | Int | Categorical


def parse(name: str, entry: object) -> Dimension:
    """Read one `[space]` entry: `{ low = ..., high = ..., log = ... }` or `{ choices = [...] }`.

    Args:
        name: name of the hyperparameter.
        entry: the entry, as TOML or JSON gives it.

    Raises:
        ValueError: the entry has problems; the message is one line with all of them, without the hyperparameter's name.
    """
    if name not in FIELDS:
        raise ValueError(check(name, None))
    if FIELDS[name].type not in (str, int, float):
        raise ValueError("holds a list or a table, which cannot be searched; put it in [fixed]")
    if not isinstance(entry, Mapping):
        raise ValueError(f"must be {{ low = ..., high = ... }} or {{ choices = [...] }}, got {quoted(entry)}")
    unknown = [f'unknown key "{key}"{did_you_mean(str(key), _KEYS)}' for key in entry if key not in _KEYS]
    if unknown:
        raise ValueError("; ".join(unknown))
    if "choices" in entry:
        if len(entry) > 1:
            raise ValueError("has both choices and bounds; keep one of them")
        return _categorical(name, entry["choices"])
    return _interval(name, entry)


def normalize(name: str, value: Any) -> Any:
    """Return `value` with the type of the field `name`: a whole number becomes a float if the field is a float."""
    is_whole = isinstance(value, int) and is_number(value)
    return float(value) if is_whole and name in FIELDS and FIELDS[name].type is float else value


def _categorical(name: str, choices: object) -> Categorical:
    if not isinstance(choices, list) or not choices:
        raise ValueError("choices must be a list with at least one value")
    if len(choices) > _MOST_CHOICES:
        raise ValueError(f"has {len(choices):,} choices, and at most {_MOST_CHOICES:,} are possible")
    problems = [f"choice {quoted(choice)} {problem}" for choice in choices if (problem := check(name, choice))]
    values = [normalize(name, choice) for choice in choices]
    problems += [f"choice {quoted(value)} is listed twice" for i, value in enumerate(values) if value in values[:i]]
    if problems:
        raise ValueError("; ".join(problems))
    return Categorical(tuple(values))


def _interval(name: str, entry: Mapping[str, Any]) -> Float | Int:
    is_int = FIELDS[name].type is int
    if FIELDS[name].type not in (int, float):
        raise ValueError("is not a number, so it needs choices = [...]")
    problems = [f"{key} is missing" for key in ("low", "high") if key not in entry]
    problems += [
        f"{key} must be a {'whole' if is_int else 'finite'} number, got {quoted(entry[key])}"
        for key in ("low", "high")
        if key in entry and not (is_number(entry[key]) and (isinstance(entry[key], int) or not is_int))
    ]
    log = entry.get("log", False)
    if not isinstance(log, bool):
        problems.append(f"log must be true or false, got {quoted(log)}")
    if problems:
        raise ValueError("; ".join(problems))
    low, high = normalize(name, entry["low"]), normalize(name, entry["high"])
    problems = [f"{key} {problem}" for key, value in (("low", low), ("high", high)) if (problem := check(name, value))]
    if low > high:
        problems.append(f"low {low:g} is above high {high:g}")
    if log and low <= 0:
        problems.append(f"low must be above 0 where log = true, got {low:g}")
    if problems:
        raise ValueError("; ".join(problems))
    return Int(low, high, log) if is_int else Float(low, high, log)
