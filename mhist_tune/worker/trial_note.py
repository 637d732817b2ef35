"""A trial's note, numbers and picture of curves for optuna-dashboard."""

from collections.abc import Sequence

from mhist_tune.plots import svg
from mhist_tune.plots.svg import Line
from mhist_tune.storage import optuna_attrs
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import markdown_table, number

_NUMBERS = ("train_loss", "val_loss", "val_mean_f1", "val_f1", "val_auroc", "val_accuracy", "images_per_s")
_CURVES = (
    ("Loss", ("train_loss", "val_loss")),
    ("Validation mean F1, F1 and AUROC", ("val_mean_f1", "val_f1", "val_auroc")),
)


def numbers(epochs: Sequence[EpochRow], best_epoch: int | None) -> dict[str, float]:
    """Return a trial's numbers at its best epoch, or else at its last one, and the seconds of all its epochs.

    optuna-dashboard shows them as columns of its table of trials.
    """
    if not epochs:
        return {}
    metrics = epochs[min(best_epoch or len(epochs), len(epochs)) - 1].metrics
    measured = {name: value for name in _NUMBERS if (value := metrics.get(name)) is not None}
    return {**measured, "elapsed_s": sum(row.metrics.get("elapsed_s") or 0.0 for row in epochs)}


def write_trial(
    storage: Storage, study: Study, stage: Stage, trial_id: int, outcome: Outcome, epochs: Sequence[EpochRow]
) -> None:
    """Give a trial its note, its numbers and a picture of its curves, before Optuna counts it as finished.

    A second call writes the same. If the folder cannot be written, only the picture is missing.
    """
    note = _note(outcome, epochs)
    if epochs:
        picture = _curves(epochs).encode()
        address = optuna_attrs.attach_to_trial(
            storage, study, stage, trial_id, picture, filename="learning-curves.svg", mimetype="image/svg+xml"
        )
        note += f"\n\n![Learning curves]({address})" if address else ""
    for name, value in numbers(epochs, outcome.best_epoch).items():
        storage.optuna.set_trial_user_attr(trial_id, name, value)
    optuna_attrs.write_trial_note(storage, study, stage, trial_id, note)


def _note(outcome: Outcome, epochs: Sequence[EpochRow]) -> str:
    parts = [f"**{outcome.state}**" + (f": {outcome.reason}" if outcome.reason else "")]
    if epochs:
        best = min(outcome.best_epoch or len(epochs), len(epochs))
        epochs_by_label = {f"best, {best}": epochs[best - 1], f"last, {len(epochs)}": epochs[-1]}
        names = [name for _, curves in _CURVES for name in curves if name in epochs[-1].metrics]
        rows = [["epoch", *names]]
        for label, row in epochs_by_label.items():
            cells = [row.metrics.get(name) for name in names]
            rows.append([label, *("" if cell is None else number(cell, 4) for cell in cells)])
        parts.append("\n".join(markdown_table(rows)))
    return "\n\n".join(parts)


def _curves(epochs: Sequence[EpochRow]) -> str:
    panels = []
    for title, names in _CURVES:
        lines = [Line(name, [row.metrics.get(name) for row in epochs], f"c{place}") for place, name in enumerate(names)]
        panels.append((title, svg.curves(title, lines, n_epochs=len(epochs))))
    return svg.standalone(panels)
