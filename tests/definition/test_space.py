"""Dimensions: what a `[space]` entry may say and how it reaches Optuna."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mhist_tune.definition import space
from mhist_tune.definition.space import Categorical, Float, Int


def test_field_type_decides_the_kind() -> None:
    """Whole bounds of a float field give a Float with float bounds; an int field gives an Int."""
    dropout = space.parse("drop_rate", {"low": 0, "high": 0.5})
    epochs = space.parse("epochs", {"low": 5, "high": 20, "log": True})

    assert dropout == Float(0.0, 0.5)
    assert isinstance(dropout, Float) and type(dropout.low) is float
    assert epochs == Int(5, 20, log=True)


def test_choices_of_a_float_field_are_floats() -> None:
    """`choices = [0, 0.1]` and `choices = [0.0, 0.1]` are the same space."""
    dimension = space.parse("weight_decay", {"choices": [0, 0.1]})

    assert dimension == Categorical((0.0, 0.1))
    assert json.dumps(dimension.to_dict()) == '{"choices": [0.0, 0.1]}'


@pytest.mark.parametrize(
    ("name", "table", "expected"),
    [
        ("learning_rate", {"low": 0.1, "high": 0.01}, "low 0.1 is above high 0.01"),
        ("drop_rate", {"low": -0.1, "high": 0.5}, "low must be at least"),
        ("drop_rate", {"low": 0.1, "high": 1.5}, "high must be at most"),
        ("weight_decay", {"low": 0.0, "high": 1.0, "log": True}, "low must be above 0 where log = true"),
        ("epochs", {"low": 5.0, "high": 20}, "low must be a whole number, got 5.0"),
        ("learning_rate", {"low": "1e-5", "high": 1e-3}, "low must be a finite number, got '1e-5'"),
        ("learning_rate", {"low": 1e-5, "high": math.inf}, "high must be a finite number, got inf"),
        ("learning_rate", {"low": math.nan, "high": 1e-3}, "low must be a finite number, got nan"),
        ("learning_rate", {"low": True, "high": 2}, "low must be a finite number, got True"),
        ("learning_rate", {"low": 1e-5}, "high is missing"),
        ("learning_rate", {"low": 1e-5, "high": 1e-3, "log": 1}, "log must be true or false, got 1"),
        ("learning_rate", {"low": 1e-5, "hihg": 1e-3}, 'unknown key "hihg" (did you mean high?)'),
        ("learning_rate", {"low": 1e-5, "high": 1e-3, "choices": [1e-4]}, "both choices and bounds"),
        ("learning_rate", 1e-3, "must be { low = ..., high = ... }"),
        ("sampling", {"low": 0, "high": 1}, "is not a number"),
        ("sampling", {"choices": ["none", "random_ovr"]}, "choice 'random_ovr' must be one of"),
        ("sampling", {"choices": []}, "at least one value"),
        ("sampling", {"choices": "none"}, "must be a list"),
        ("drop_rate", {"choices": [0, 0.0]}, "listed twice"),
        ("exclude_votes", {"choices": [[3], [4]]}, "cannot be searched; put it in [fixed]"),
        ("drop_rat", {"low": 0.1, "high": 0.5}, "did you mean drop_rate?"),
    ],
)
def test_what_is_wrong_is_said(name: str, table: object, expected: str) -> None:
    """Each mistake in an entry is refused with a text that names the key and the value."""
    with pytest.raises(ValueError) as error:
        space.parse(name, table)

    assert expected in str(error.value)


def test_all_problems_of_an_entry_come_at_once() -> None:
    """Two bad bounds are reported together."""
    with pytest.raises(ValueError, match=r"low must be at least .*; high must be at most"):
        space.parse("drop_rate", {"low": -1, "high": 2})


def test_distributions_are_optunas() -> None:
    """Each dimension has the Optuna distribution with the same bounds or choices."""
    assert Float(1e-5, 1e-3, log=True).distribution() == FloatDistribution(1e-5, 1e-3, log=True)
    assert Int(1, 8).distribution() == IntDistribution(1, 8)
    assert Categorical(("none", "head")).distribution() == CategoricalDistribution(("none", "head"))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("learning_rate", {"low": 1e-6, "high": 1e-3, "log": True}),
        ("drop_rate", {"low": 0, "high": 0.6}),
        ("epochs", {"low": 1, "high": 30}),
        ("effective_batch_size", {"choices": [8, 16]}),
        ("dropout_placement", {"choices": ["none", "head+last1.mlp"]}),
    ],
)
def test_to_dict_is_read_back_through_json(name: str, table: dict[str, object]) -> None:
    """A stored dimension is the dimension that was stored."""
    dimension = space.parse(name, table)

    assert space.parse(name, json.loads(json.dumps(dimension.to_dict()))) == dimension


@given(low=st.floats(0, 0.4), high=st.floats(0.5, 0.9), value=st.floats(allow_nan=True, allow_infinity=True))
def test_contains_is_the_closed_interval(low: float, high: float, value: float) -> None:
    """A float lies in a dimension exactly when low <= value <= high; the nearest value always does."""
    dimension = Float(low, high)

    assert dimension.contains(value) == (low <= value <= high)
    if not math.isnan(value):
        assert dimension.contains(dimension.nearest(value))


def test_contains_tells_kinds_apart() -> None:
    """A float is no Int, a bool is no number, and a value is one of the choices or is not."""
    assert Int(1, 8).contains(8)
    assert not Int(1, 8).contains(9)
    assert not Int(1, 8).contains(2.0)
    assert not Int(0, 1).contains(True)
    assert not Float(0.0, 1.0).contains(True)
    assert Categorical((8, 16)).contains(16)
    assert not Categorical((8, 16)).contains(24)
    assert not Categorical((0, 1)).contains(True)


def test_nearest_keeps_what_fits_and_moves_the_rest() -> None:
    """Values inside stay, values beyond a bound move to it, an unknown choice becomes the first one."""
    assert Float(0.03, 10.0).nearest(0.0) == 0.03
    assert Float(0.03, 10.0).nearest(1.0) == 1.0
    assert Int(5, 20).nearest(40) == 20
    assert Categorical((8, 16)).nearest(16) == 16
    assert Categorical((8, 16)).nearest(32) == 8
