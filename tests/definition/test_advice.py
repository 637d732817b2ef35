"""Tests of mhist_tune.definition.advice."""

import pytest

from mhist_tune.definition import study_file
from mhist_tune.definition.advice import advice


def lines(space: str, fixed: str = "", study: str = "") -> list[str]:
    text = f"[study]\nname = 'a'\nn_trials = 2\n{study}\n[fixed]\n{fixed}\n[space]\n{space}\n"
    return advice(study_file.parse(text, "test"))


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
    """A product below 3e-8 with AdamW gives a line of advice; a weight decay of 0 gives none."""
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
    assert all("smote equals random_over" in line for line in found)


def table(*rows: str) -> list[str]:
    entries = "\n".join(f"[[row]]\n{row}" for row in rows)
    return advice(study_file.parse(f"[study]\nname = 'a'\n{entries}\n", "test"))


def test_each_row_of_a_table_is_looked_at() -> None:
    """A row's own rate and decay make the product, and smote's own scope makes it another random_over."""
    assert table("weight_decay = 1e-6\nlearning_rate = 1.0", "weight_decay = 1.0\nlearning_rate = 1e-6") == []
    (line,) = table("weight_decay = 0.0", "weight_decay = 1e-4\nlearning_rate = 1e-5")
    assert "weight_decay 0.0001" in line

    over = "sampling = 'random_over'\naugment_scope = 'all'"
    assert table(over, "sampling = 'smote'\naugment_scope = 'resampled'") == []
    (line,) = table(over, "sampling = 'smote'\naugment_scope = 'none'")
    assert 'with augment_scope = "none" smote equals random_over' in line


RATES = "learning_rate = { low = 1e-4, high = 1e-3, log = true }"


@pytest.mark.parametrize(
    ("study", "fixed", "expected"),
    [
        ('at = "last"', "patience = 4", ["patience has no effect"]),
        ('at = "last"', 'patience = 4\nmonitor = "loss"', ["patience has no effect", "monitor has no effect"]),
        ('at = "last"', "", []),
        ('at = "best"', 'patience = 4\nmonitor = "loss"', []),
        ('score = "auroc"', 'weights = "random"', ['score = "auroc" is a poor guide for models from random weights']),
        ('score = "auroc"', 'weights = "pretrained"', []),
        ('score = "mean_f1"', 'weights = "random"', []),
    ],
)
def test_a_score_or_early_stopping_that_misleads_is_named(study: str, fixed: str, expected: list[str]) -> None:
    """Early stopping has no effect at the last epoch, and AUROC is advised against for random weights."""
    found = lines(RATES, fixed, study)

    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
