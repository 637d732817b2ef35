"""What a study cost: hours of its workers, measured energy, and what follows from the author's rates."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mhist_tune.report.about import About
from mhist_tune.storage import epochs, ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import Rows, number

TITLE = "Cost"


@dataclass(frozen=True)
class StageCost:
    """What the trainings of one stage cost.

    Attributes:
        stage: search, confirm, retrain or descriptive.
        n_trainings: with a recorded epoch, however they ended.
        hours: of their recorded epochs, with validation.
        lost_hours: the part of `hours` of trainings that were pruned or failed.
        measured_hours: the part of `hours` in which power was measured.
        kwh: the energy of the measured hours; None without any.
    """

    stage: str
    n_trainings: int
    n_epochs: int
    hours: float
    lost_hours: float
    measured_hours: float
    kwh: float | None


@dataclass(frozen=True)
class StudyCost:
    """What a study cost in all its openings.

    Attributes:
        stages: those with a recorded epoch, in their order.
        kwh: the energy of the measured hours; None without any.
        co2e_kg: `kwh` times the author's carbon intensity; None without either.
        price: `hours` times the author's price of an hour; None without it.
        currency: of the price; None where the author names none.
    """

    stages: list[StageCost]
    hours: float
    measured_hours: float
    kwh: float | None
    grid_kg_per_kwh: float | None
    co2e_kg: float | None
    price_per_hour: float | None
    price: float | None
    currency: str | None


def document(storage: Storage, study: Study, facts: About) -> StudyCost:
    """Return what a study cost.

    Args:
        storage: where the study is.
        study: the study.
        facts: what the author says, with price and carbon intensity.
    """
    stages = _stages(storage, study)
    energies = [stage.kwh for stage in stages if stage.kwh is not None]
    hours, kwh = sum(stage.hours for stage in stages), sum(energies) if energies else None
    intensity, hourly = facts.number("grid_kg_per_kwh"), facts.number("price_per_hour")
    return StudyCost(
        stages=stages,
        hours=hours,
        measured_hours=sum(stage.measured_hours for stage in stages),
        kwh=kwh,
        grid_kg_per_kwh=intensity,
        co2e_kg=None if kwh is None or intensity is None else kwh * intensity,
        price_per_hour=hourly,
        price=None if hourly is None else hours * hourly,
        currency=facts.text("currency"),
    )


def rows(cost: StudyCost) -> Rows:
    """Return the hours and the energy of each stage and of all."""
    table = [["stage", "trainings", "epochs", "hours", "of trainings pruned or failed", "kWh"]]
    for stage in cost.stages:
        hours = [number(stage.hours), number(stage.lost_hours), number(stage.kwh)]
        table.append([stage.stage, f"{stage.n_trainings:,}", f"{stage.n_epochs:,}", *hours])
    n_trainings, n_epochs = sum(s.n_trainings for s in cost.stages), sum(s.n_epochs for s in cost.stages)
    lost = sum(stage.lost_hours for stage in cost.stages)
    return [*table, ["all", f"{n_trainings:,}", f"{n_epochs:,}", number(cost.hours), number(lost), number(cost.kwh)]]


def lines(cost: StudyCost) -> list[str]:
    """Return how the numbers are made, and emissions and price where the author gives the rates."""
    found = [
        "Hours are those of recorded epochs with their validation, summed over workers; two workers on one device "
        "count twice. Predictions, tests of settings and epochs that a killed worker had not recorded are left out.",
        _energy(cost),
    ]
    if cost.co2e_kg is not None:
        found.append(
            f"Emissions: {number(cost.co2e_kg)} kg of CO2 equivalents, which is {number(cost.kwh)} kWh times "
            f"{cost.grid_kg_per_kwh:g} kg per kWh, the author's carbon intensity. The formula is power times time "
            "times carbon intensity (Lacoste et al., 2019, arXiv:1910.09700)."
        )
    if cost.price is not None:
        unit = f" {cost.currency}" if cost.currency else ""
        found.append(
            f"Price: {cost.price:.2f}{unit}, which is {number(cost.hours)} hours times {cost.price_per_hour:g}{unit}, "
            "the author's price of an hour."
        )
    return found


def _energy(cost: StudyCost) -> str:
    if cost.kwh is None:
        return "No power was measured, so there is no energy. It takes an NVIDIA GPU and the package nvidia-ml-py."
    return (
        f"Energy: {number(cost.kwh)} kWh in the {number(cost.measured_hours)} hours in which it was measured. It is "
        "the mean power of each epoch by the GPU's own counter, shared equally by the processes on the GPU, times the "
        "seconds of the epoch. Processor, memory and cooling are not in it."
    )


def _stages(storage: Storage, study: Study) -> list[StageCost]:
    by_stage: dict[Stage, list[tuple[int, dict[str, float | None]]]] = defaultdict(list)
    for stage, slot, metrics in epochs.metrics_of_study(storage, study):
        by_stage[stage].append((slot, metrics))
    return [_stage(storage, study, stage, by_stage[stage]) for stage in Stage if stage in by_stage]


def _stage(
    storage: Storage, study: Study, stage: Stage, measured: Sequence[tuple[int, dict[str, float | None]]]
) -> StageCost:
    slots = ledger.slots(storage, study, stage)
    lost = {slot.slot for slot in slots if slot.outcome and slot.outcome.state is not EndState.COMPLETE}
    times = [(slot, metrics.get("elapsed_s") or 0.0, metrics.get("power_w")) for slot, metrics in measured]
    with_power = [(elapsed_s, power_w) for _, elapsed_s, power_w in times if power_w is not None]
    return StageCost(
        stage=stage,
        n_trainings=len({slot for slot, _ in measured}),
        n_epochs=len(measured),
        hours=sum(elapsed_s for _, elapsed_s, _ in times) / 3600,
        lost_hours=sum(elapsed_s for slot, elapsed_s, _ in times if slot in lost) / 3600,
        measured_hours=sum(elapsed_s for elapsed_s, _ in with_power) / 3600,
        kwh=sum(elapsed_s * power_w for elapsed_s, power_w in with_power) / 3.6e6 if with_power else None,
    )
