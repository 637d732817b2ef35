"""What the first release computed is computed still, bitwise.

`tools/golden.py` made `tests/first_release/golden.json`.
"""

import dataclasses
import importlib.util
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition import study_file
from mhist_tune.search import pruning

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "first_release" / "golden.json").read_text())

_spec = importlib.util.spec_from_file_location("golden", ROOT / "tools" / "golden.py")
assert _spec is not None
assert _spec.loader is not None
golden: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


@pytest.mark.parametrize("name", ["halved", "median"])
def test_recorded_scores_are_judged_as_before(name: str) -> None:
    """Fed with the golden scores, the pruner decides and compares the same at every epoch, on any processor."""
    study = study_file.parse(golden.STUDIES[name], "test")
    recorded = GOLDEN["studies"][name]["epochs"]
    curves: dict[int, dict[int, float]] = {}
    n_pruned = 0
    for key, epoch in recorded.items():  # the only worker trained one slot after the other
        slot, number = map(int, key.split()[1:])
        curves.setdefault(slot, {})[number] = epoch["value"]
        decision = pruning.decide(
            study.pruner,
            slot=slot,
            epoch=number,
            n_epochs=study.fixed["epochs"],
            value=epoch["value"],
            values_at=lambda at: {slot: curve[at] for slot, curve in curves.items() if at in curve},
        )

        assert golden.decision_of(json.dumps(dataclasses.asdict(decision))) == epoch["decision"], key
        n_pruned += epoch["decision"]["verdict"] == "prune"
    assert n_pruned > 0


@pytest.mark.parametrize("name", golden.STUDIES)
def test_images_are_split_as_before(run: Run, generated: Path, tmp_path: Path, name: str) -> None:
    """A new study takes the same train and validation images, in the same order, on any processor."""
    (tmp_path / "study.toml").write_text(golden.STUDIES[name])
    assert run("create-study", "study.toml", "--data", str(generated))[0] == 0

    connection = sqlite3.connect(tmp_path / "storage" / "mhist-tune.db")
    rows = dict(connection.execute("SELECT image_set, rows FROM mhist_image_sets").fetchall())
    connection.close()
    expected = GOLDEN["studies"][name]["image_sets"]
    assert rows.keys() == expected.keys() - {"test"}
    assert {image_set: golden.digest(text.encode()) for image_set, text in rows.items()} == {
        image_set: expected[image_set] for image_set in rows
    }


@pytest.mark.slow
def test_every_stage_computes_what_it_did(tmp_path: Path) -> None:
    """Params, curves, decisions, outcomes, probabilities, weights and reports are the same to the last bit."""
    here = golden.machine()
    other = [f"{name} is {here[name]}, not {GOLDEN[name]}" for name in here if here[name] != GOLDEN[name]]
    if other:
        pytest.skip(f"the last bits of sums depend on it: {'; '.join(other)}")

    found = golden.compute(ROOT, tmp_path)

    computed, expected = (
        {path: leaf for path, leaf in golden.flat(one).items() if not set(path.split("/")) & set(golden.DEFINED_ANEW)}
        for one in (found, {name: GOLDEN[name] for name in found})
    )
    assert computed.keys() == expected.keys()
    assert [f"{path}: {computed[path]}, was {leaf}" for path, leaf in expected.items() if computed[path] != leaf] == []
