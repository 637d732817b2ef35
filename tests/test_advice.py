"""Tests of mhist_tune.advice."""

import pytest

from mhist_tune import definition
from mhist_tune.advice import advice


def lines(space: str, fixed: str = "") -> list[str]:
    text = f"[study]\nname = 'a'\nn_trials = 2\n[fixed]\n{fixed}\n[space]\n{space}\n"
    return advice(definition.parse(text, "test"))


@pytest.mark.parametrize(
    ("space", "fixed", "is_warned"),
    [
        ("learning_rate = { low = 1e-6, high = 1e-3, log = true }", "weight_decay = 0.01", True),
        ("learning_rate = { low = 1e-6, high = 1e-3, log = true }", "weight_decay = 0.04", False),
        ("learning_rate = { low = 1e-6, high = 1e-3, log = true }", "weight_decay = 0.0", False),
        ("learning_rate = { low = 1e-6, high = 1e-3, log = true }", "weight_decay = 0.01\noptimizer = 'adam'", False),
        ("weight_decay = { choices = [0.0, 1e-4, 0.1] }", "learning_rate = 1e-5", True),
        ("weight_decay = { choices = [0.0, 0.1] }", "learning_rate = 1e-5", False),
        ("optimizer = { choices = ['sgd', 'adamw'] }", "learning_rate = 1e-5\nweight_decay = 1e-3", True),
    ],
)
def test_a_decay_that_float32_drops_is_named(space: str, fixed: str, is_warned: bool) -> None:
    """Where AdamW may meet a product below 3e-8 the line says so; no decay at all is meant."""
    found = lines(space, fixed)

    assert len(found) == is_warned
    assert all("below 3e-8" in line for line in found)


@pytest.mark.parametrize(
    ("sampling", "scope", "is_warned"),
    [
        ("['random_over', 'smote']", "all", True),
        ("['random_over', 'smote', 'adasyn']", "none", True),
        ("['random_over', 'smote']", "resampled", False),
        ("['random_over', 'adasyn']", "all", False),
    ],
)
def test_two_names_for_one_sampling_are_named(sampling: str, scope: str, is_warned: bool) -> None:
    """Smote and random_over differ only where new images alone are augmented."""
    found = lines(f"sampling = {{ choices = {sampling} }}", f"augment_scope = '{scope}'")

    assert len(found) == is_warned
    assert all("smote is random_over" in line for line in found)
