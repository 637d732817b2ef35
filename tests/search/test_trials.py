import numpy as np
import pytest

from mhist_tune.definition.space import Categorical, Float, Int
from mhist_tune.search.trials import Trial, edges, importance
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.outcome import EndState

SPACE = {
    "learning_rate": Float(1e-6, 1e-2, log=True),
    "drop_rate": Float(0.1, 0.6),
    "sampling": Categorical(("none", "random_over")),
}


def trial(number, params, values):
    """Return a trial with these values, one for each epoch."""
    epochs = [EpochRow(n, 1, value, value, {}, None, 0.0) for n, value in enumerate(values, start=1)]
    return Trial(number, EndState.COMPLETE if len(values) > 2 else EndState.PRUNED, params, tuple(epochs))


def draw(rng):
    return {
        "learning_rate": float(10 ** rng.uniform(-6, -2)),
        "drop_rate": float(rng.uniform(0.1, 0.6)),
        "sampling": str(rng.choice(["none", "random_over"])),
    }


def test_importance_is_not_fooled_by_pruning():
    """The sampling changes only the number of epochs. After equal epochs the learning rate explains the values."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        params = draw(rng)
        score = 0.8 - 0.1 * (np.log10(params["learning_rate"]) + 4) ** 2 + 0.005 * rng.normal()
        later = [] if params["sampling"] == "none" else [score + 0.5] * 10
        made.append(trial(number, params, [score - 0.1, score, *later]))
    result = importance(made, SPACE)
    assert (result.epoch, result.n_trials, result.missing) == (2, 40, None)
    assert next(iter(result.shares)) == "learning_rate"
    share, low, high = result.shares["learning_rate"]
    assert share > 0.8
    assert low <= high
    assert sum(interval[0] for interval in result.shares.values()) == pytest.approx(1)


def test_importance_of_noise_or_of_few_trials_is_not_given():
    """Shares would add up to 1 in both cases. Instead the result says that there is not enough data."""
    rng = np.random.default_rng(1)
    noise = [trial(number, draw(rng), [float(rng.normal())]) for number in range(40)]
    for trials in (noise, noise[:19], []):
        result = importance(trials, SPACE)
        assert result.shares == {}
        assert result.missing.startswith("not enough data")


@pytest.mark.parametrize(
    ("name", "dimension", "value", "end"),
    [
        ("learning_rate", Float(1e-6, 1e-2, log=True), 1.2e-6, "lower"),
        ("learning_rate", Float(1e-6, 1e-2, log=True), 1e-4, None),
        ("drop_rate", Float(0.1, 0.6), 0.59, "upper"),
        ("epochs", Int(1, 40), 40, "upper"),
        ("drop_rate", Float(0.5, 0.5), 0.5, None),
        ("effective_batch_size", Categorical((8, 16, 32)), 8, "lower"),
        ("effective_batch_size", Categorical((8, 16, 32)), 16, None),
        ("effective_batch_size", Categorical((8, 16)), 8, None),
        ("sampling", Categorical(("none", "random_over")), "none", None),
    ],
)
def test_a_value_at_the_end_of_its_range_raises_an_alarm(name, dimension, value, end):
    """A value within 5% of an end, on the searched scale, is reported. Names and pairs of choices have no ends."""
    alarms = edges({name: value}, {name: dimension})
    assert len(alarms) == (end is not None)
    if end:
        assert f"at the {end} end" in alarms[0]
        assert name in alarms[0]
