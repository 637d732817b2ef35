"""`mhist-tune repeat` with a tiny model and real workers."""

import json
from pathlib import Path

import pytest

from mhist_tune.report import repetitions
from mhist_tune.storage import studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.openings import load_all_openings
from tests.conftest import Run

DEFINITION = """
[study]
name = "tiny"
n_trials = 2
score = "mean_f1"
at = "last"
sampler = { name = "random", seed = 3 }
pruner = { name = "none" }

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 1
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
sampling = { choices = ["none", "random_over"] }
"""
CONFIRM = """
[confirm]
top = 1
n_folds = 2

[[start]]
learning_rate = 1e-3
sampling = "none"
"""


@pytest.fixture
def data(run: Run, generated: Path) -> tuple[str, ...]:
    """The options that name the data, with the study `tiny` created."""
    Path("tiny.toml").write_text(DEFINITION + CONFIRM)
    options = ("--data", str(generated))
    assert run("create-study", "tiny.toml", *options)[0] == 0
    return options


def test_repetitions_are_searched_on_other_splits_and_never_tested(
    run: Run, data: tuple[str, ...], storage_url_sqlite: str
) -> None:
    """Two studies are created, searched and confirmed; a second call prints the same without data or training."""
    code, out, err = run("repeat", "tiny", "--n", "2", "--devices", "cpu", "--per-device", "1", "--json", *data)
    assert code == 0, err
    found = json.loads(out)

    assert (found["n_done"], found["missing"]) == (2, None)
    assert found["gain"]["ci95"][0] <= found["gain"]["estimate"] <= found["gain"]["ci95"][1]
    assert sum(found["spread"]["sampling"]["counts"].values()) == 2
    assert [one["study"] for one in found["repetitions"]] == ["tiny-repeat-1", "tiny-repeat-2"]
    for one in found["repetitions"]:
        assert (one["gain"] == 0.0 and one["score"] == one["default_score"]) or not one["is_default"]
    assert json.loads(run("repeat", "tiny", "--n", "2", "--json")[1]) == found
    assert "Over 2 independent repetitions of the search" in run("repeat", "tiny", "--n", "2")[1]
    with open_storage(storage_url_sqlite) as storage:
        every = [studies.load_study(storage, name) for name in ("tiny", "tiny-repeat-1", "tiny-repeat-2")]
        assert len({study.definition.split_seed for study in every}) == 3
        assert len({study.definition.sampler["seed"] for study in every}) == 3
        assert len({study.dataset["fingerprint"] for study in every}) == 1
        assert load_all_openings(storage) == []


def test_enqueue_only_creates_and_a_second_call_changes_nothing(
    run: Run, data: tuple[str, ...], storage_url_sqlite: str
) -> None:
    """The studies are printed by name, and their gain is not known yet."""
    for _ in range(2):
        code, out, err = run("repeat", "tiny", "--n", "3", "--enqueue", *data)
        assert (code, out.split()) == (0, ["tiny-repeat-1", "tiny-repeat-2", "tiny-repeat-3"]), err
    with open_storage(storage_url_sqlite) as storage:
        found = repetitions.load(storage, studies.load_study(storage, "tiny"))
    assert found is not None
    assert found.missing == "0 of 3 repetitions are finished, and 2 are needed"


def test_what_has_no_gain_is_refused(run: Run, data: tuple[str, ...]) -> None:
    """A study without [confirm], and a repetition: one line each with exit code 2. Without data nothing is made."""
    Path("plain.toml").write_text(DEFINITION.replace('"tiny"', '"plain"'))
    assert run("create-study", "plain.toml", *data)[0] == 0
    assert run("repeat", "tiny", "--n", "2", "--enqueue", *data)[0] == 0
    for name, problem in (("plain", "has no [confirm]"), ("tiny-repeat-1", "is itself a repetition of tiny")):
        code, out, err = run("repeat", name, *data)
        assert (code, out) == (2, ""), err
        assert problem in err
    code, _, err = run("repeat", "tiny", "--n", "3", "--enqueue")
    assert (code, "no data set was named" in err) == (2, True)
