"""What a study cost: hours of every training, measured energy, and the author's rates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition.study_file import parse
from mhist_tune.report import build, cost, files, report_tables
from mhist_tune.report.document import Report
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from tests.support import made_up

TRIALS = ((EndState.COMPLETE, 3600.0), (EndState.PRUNED, 720.0), (EndState.FAIL, 360.0))
RATES = {"price_per_hour": 2.0, "currency": "EUR", "grid_kg_per_kwh": 0.5}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


def studied(storage: Storage, power_w: float | None, rates: dict[str, Any] | None = None) -> Report:
    """Return the report of a search whose trials ended in every way, and of two openings of one seed each."""
    text = made_up.DEFINITION.format(name="tiny").replace("n_trials = 1", "n_trials = 3")
    sets = {"train": [["train.png", 0, 1, None]], "val": [["val.png", 1, 6, None]]}
    study = studies.create_study(storage, parse(text, "tiny"), dataset={"fingerprint": "f"}, image_sets=sets)
    power = {} if power_w is None else {"power_w": power_w}
    for state, elapsed_s in TRIALS:
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        for epoch in (1, 2):
            metrics = {"elapsed_s": elapsed_s / 2, "images_per_s": 1.0, **(power if epoch == 2 else {})}
            record_epoch(storage, claim, epoch=epoch, score=0.5, value=0.5, metrics=metrics)
        ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
        ledger.decide(storage, claim, Outcome(state=state, value=0.5, best_epoch=1, stopped_epoch=2, params={}))
        assert ledger.finish(storage, claim)
    for trial in (0, 1):
        made_up.open_test(storage, study, trial=trial, seeds=(0,))
        made_up.retrain(storage, study, n_slots=1, epochs=[{"elapsed_s": 36.0}])
    return build.build(storage, "tiny", rates)


def test_every_training_counts(storage: Storage) -> None:
    """Pruned and failed trials and the seeds of an earlier opening are in the hours; without power no energy is."""
    report = studied(storage, None, {"grid_kg_per_kwh": 0.5})
    assert [(stage.stage, stage.n_trainings, stage.n_epochs) for stage in report.cost.stages] == [
        ("search", 3, 6),
        ("retrain", 2, 2),
    ]
    assert [stage.hours for stage in report.cost.stages] == pytest.approx([1.3, 0.02])
    assert [stage.lost_hours for stage in report.cost.stages] == pytest.approx([0.3, 0])
    assert report.cost.hours == pytest.approx(1.32)
    assert (report.cost.kwh, report.cost.co2e_kg, report.cost.price, report.cost.measured_hours) == (None,) * 3 + (0,)
    assert cost.rows(report.cost)[-1] == ["all", "5", "8", "1.320", "0.300", "-"]
    assert any("No power was measured" in line for line in cost.lines(report.cost))


def test_energy_emissions_and_price_follow_from_power_and_rates(storage: Storage, tmp_path: Path) -> None:
    """300 W over half of 1.3 h are .195 kWh; at .5 kg each they are .0975 kg. 1.32 h cost 2.64 at 2.00 each."""
    report = studied(storage, 300.0, RATES)
    assert report.cost.kwh == pytest.approx(0.195)
    assert report.cost.measured_hours == pytest.approx(0.65)
    assert report.cost.co2e_kg == pytest.approx(0.0975)
    assert report.cost.price == pytest.approx(2.64)
    lines = " ".join(cost.lines(report.cost))
    assert "0.195 kWh in the 0.650 hours" in lines
    assert "0.098 kg of CO2 equivalents, which is 0.195 kWh times 0.5 kg" in lines
    assert "Price: 2.64 EUR, which is 1.320 hours times 2 EUR" in lines
    files.write(storage, "tiny", tmp_path / "report", RATES)
    for kind in ("html", "md"):
        text = (tmp_path / "report" / f"report.{kind}").read_text()
        assert "2.64 EUR" in text
    assert ["currency", "EUR"] in dict(report_tables.tables(report))["About the study and its data"]
