"""Records an opening of the test partition, which comes before every result on it.

`open_test` compares everything that can be compared without reading a test image. Then it writes the opening to the
database, and only then reads the images. The opening fixes the trial, the seeds, and the default that is retrained
beside the trial. A second call with the same set returns the same opening; any other set needs a reason. So does the
first opening of images that another study has opened, unless both belong to a comparison that was declared before.
An opening whose images do not fit has failed before any prediction. The same call with the right images resumes it, as
an opening of its own.

`open_rows` records one for early-stopped models of a table's rows, so that they can be compared with published tables
of such models. These results are descriptive: they have a stage of their own, and no report of a study uses it.
"""

import getpass
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mhist_tune.actions.opening_reason import reason
from mhist_tune.code_version import code_version
from mhist_tune.data.pin import test_pin
from mhist_tune.errors import DataError, UsageError
from mhist_tune.search import finalists, selection
from mhist_tune.search.costs import N_SEEDS
from mhist_tune.search.finalists import Confirmation
from mhist_tune.storage import ledger, openings
from mhist_tune.storage.database import Storage
from mhist_tune.storage.openings import OpeningRow
from mhist_tune.storage.payloads import DescriptivePayload, RetrainPayload
from mhist_tune.storage.slot_rows import SearchSlot
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

Announce = Callable[[OpeningRow, list[OpeningRow]], None]
"""Is called with an opening and all openings of the same images, after it is recorded and before an image is read."""


def open_test(
    storage: Storage,
    study: Study,
    *,
    data_root: Path,
    trial: int | None = None,
    n_seeds: int = N_SEEDS,
    again: str | None = None,
    announce: Announce = lambda _opening, _all: None,
) -> int:
    """Record an opening for one trial and its seeds, and add a slot for each seed. Return the id of the opening.

    If the study's default is confirmed, the opening includes the same seeds of the default: one opening then measures
    the gain from tuning. A second call with the same trial and seeds returns the same opening and adds nothing.

    Args:
        storage: the storage of the study.
        study: the study.
        data_root: the folder of the data set.
        trial: the number of the search trial. None for the final choice: the best confirmed trial, or the best trial of
            a study that confirms none.
        n_seeds: the number of seeds, 0 to n_seeds - 1.
        again: the reason for opening the test partition for another trial or other seeds, or after another study.
        announce: see `Announce`.

    Raises:
        UsageError: the trial is not complete, or there is another opening and no reason is given.
        DataError: the data set is not that of the study, and nothing is recorded; or test images are damaged or copies
            of train images, and the opening is recorded as failed.
    """
    searched = ledger.slots(storage, study, Stage.SEARCH)
    confirmation = finalists.load(storage, study)
    chosen = _choose(study, searched, confirmation) if trial is None else trial
    default = confirmation.default.candidate.trial if confirmation and confirmation.default else None
    trials = [chosen] if default in (None, chosen) else [chosen, default]
    slots = [_complete(study, searched, number, confirmation) for number in trials if number is not None]
    seeds = list(range(n_seeds))
    payloads = [_payload(study, searched, confirmation, slot, seed) for slot in slots for seed in seeds]
    fixed_set = {"trial": chosen, "seeds": seeds}
    return _open(
        storage,
        study,
        data_root,
        fixed_set,
        payloads,
        stage=Stage.RETRAIN,
        again=again,
        announce=announce,
        default=default,
    )


def open_rows(
    storage: Storage,
    study: Study,
    *,
    data_root: Path,
    trials: Sequence[int] = (),
    n_seeds: int | None = None,
    again: str | None = None,
    announce: Announce = lambda _opening, _all: None,
) -> int:
    """Record an opening for early-stopped models of a table's rows, add a slot for each row and seed, return its id.

    A second call with the same rows and seeds returns the same opening and adds nothing.

    Args:
        storage: the storage of the study.
        study: the study.
        data_root: the folder of the data set.
        trials: a trial of each row; if empty, every row with a complete training.
        n_seeds: the number of seeds, 0 to n_seeds - 1; None for the table's number.
        again, announce: as for `open_test`.

    Raises:
        UsageError: the study is a search, a trial is not complete, or there is another opening and no reason is given.
        DataError: as for `open_test`.
    """
    if not study.definition.rows:
        raise UsageError(
            f"{study.name} is a search; --with-validation describes the rows of a table",
            hint=f"mhist-tune retrain {study.name}",
        )
    slots = ledger.slots(storage, study, Stage.SEARCH)
    if trials:
        labels = {_complete(study, slots, trial).payload.label for trial in trials}
    else:
        _require_finished(study, slots)
        labels = {row.label for row in study.definition.rows}
    chosen = [row.slots[0] for row in selection.row_scores(study, slots) if row.slots and row.label in labels]
    if not chosen:
        raise selection.without_result(study, slots)
    seeds = list(range(n_seeds or study.definition.n_seeds))
    payloads = [
        DescriptivePayload(
            trial=_number_of(slot), label=slot.payload.label or "", params=selection.params_of(slot), seed=seed
        )
        for seed in seeds
        for slot in chosen
    ]
    fixed_set = {"trials": [slot.trial_number for slot in chosen], "seeds": seeds}
    return _open(
        storage, study, data_root, fixed_set, payloads, stage=Stage.DESCRIPTIVE, again=again, announce=announce
    )


def _choose(study: Study, searched: Sequence[SearchSlot], confirmation: Confirmation | None) -> int:
    """Return the number of the trial that is the final choice.

    Raises:
        UsageError: the search or the confirmation is not finished, or no trial is complete.
    """
    _require_finished(study, searched)
    if confirmation and confirmation.n_open:
        raise UsageError(
            f"{confirmation.n_open} finalists of {study.name} are not confirmed yet, so the final choice is not known",
            hint=f"finish it: mhist-tune worker {study.name}, or choose: mhist-tune retrain {study.name} --trial N",
        )
    choice = finalists.final_choice(study, searched, confirmation)
    if choice is None or choice.trial_number is None:
        raise selection.without_result(study, searched)
    return choice.trial_number


def _require_finished(study: Study, slots: Sequence[SearchSlot]) -> None:
    if unfinished := selection.unfinished(slots):
        raise UsageError(
            f"the search of {study.name} has {len(unfinished)} unfinished slots, so its best trial is not known",
            hint=f"finish it: mhist-tune worker {study.name}, or choose: mhist-tune retrain {study.name} --trial N",
        )


def _complete(
    study: Study, slots: Sequence[SearchSlot], trial: int, confirmation: Confirmation | None = None
) -> SearchSlot:
    """Return the search slot of a trial, which must be complete or confirmed. A pruned default can be confirmed."""
    slot = next((slot for slot in slots if slot.trial_number == trial), None)
    is_confirmed = confirmation is not None and confirmation.of_trial(trial) is not None
    if slot is None or not (is_confirmed or selection.is_complete(slot)):
        raise UsageError(
            f"trial {trial} of {study.name} is not a complete trial", hint=f"mhist-tune status {study.name}"
        )
    return slot


def _open(
    storage: Storage,
    study: Study,
    data_root: Path,
    fixed_set: dict[str, Any],
    payloads: Sequence[RetrainPayload | DescriptivePayload],
    *,
    stage: Stage,
    again: str | None,
    announce: Announce,
    default: int | None = None,
) -> int:
    """Return the id of the opening of this set, whatever default it has. Record it if there is none."""
    from mhist_tune.data import holdout  # imports torch

    test_rows = _require_same_data(study, data_root)
    own = openings.load_openings(storage, study)
    same_set = [row for row in own if {**row.payload, **fixed_set} == row.payload]
    opening = next((row for row in same_set if row.is_look), None)
    if opening and opening.fingerprint:
        if not _is_of_other_images(storage, study, opening, data_root):
            return opening.id
        own, opening = openings.load_openings(storage, study), None
    if opening is None:
        opening = openings.record_opening(
            storage,
            study,
            by=f"{_user()}: mhist-tune retrain",
            code_version=code_version(),
            reason=lambda earlier: reason(study, earlier, again, resumed=same_set[-1] if same_set else None),
            payload=fixed_set if default is None else {**fixed_set, "default": default},
            test_rows=test_rows,
            fingerprint=next((row.fingerprint for row in own if row.is_look and row.fingerprint), ""),
        )
    announce(opening, openings.openings_of_images(storage, study))
    image_size = study.definition.hyperparameters({}).image_size
    try:
        fingerprint = holdout.read_all(data_root, image_size=image_size, cache_dir=storage.root / "cache")
        if any(row.is_look and row.fingerprint not in ("", fingerprint) for row in own):
            raise DataError(
                f"the test images under {data_root} are not those that {study.name} was opened with before",
                hint="use the same copy of the data set for every opening",
            )
    except DataError as error:
        openings.record_failure(storage, study, opening.id, str(error))
        raise
    openings.record_reading(storage, study, opening.id, fingerprint=fingerprint, slots=payloads, stage=stage)
    return opening.id


def _require_same_data(study: Study, data_root: Path) -> str:
    """Return the hash of the test rows, after a comparison of the data with the study. No test image is read.

    Raises:
        DataError: the data set is not that of the study, or a test image is missing.
    """
    from mhist_tune.data import cache  # imports torch

    if cache.fingerprint(data_root) != study.dataset["fingerprint"]:
        raise DataError(
            f"the images under {data_root} are not those that {study.name} was created with",
            hint="point --data to the same copy of the data set",
        )
    found = test_pin(data_root)
    if found is None:
        raise DataError(f"the table under {data_root} has no rows of the test partition")
    if found.missing:
        raise DataError(
            f"{len(found.missing)} test images are missing under {data_root}, first {found.missing[0]}",
            hint="point --data to a complete copy of the data set",
        )
    pinned_rows, pinned_sizes = (study.dataset.get(f"test_{name}_sha256") for name in ("rows", "sizes"))
    if pinned_rows not in (None, found.rows):
        raise DataError(
            f"the test rows of the table under {data_root} (names, labels, votes, groups) are not those that "
            f"{study.name} was created with",
            hint="point --data to the same copy of the data set",
        )
    if pinned_sizes not in (None, found.sizes):
        raise DataError(
            f"test images under {data_root} are other files than when {study.name} was created: their sizes differ",
            hint="point --data to the same copy of the data set",
        )
    return found.rows


def _is_of_other_images(storage: Storage, study: Study, opening: OpeningRow, data_root: Path) -> bool:
    """Return whether an opening without predictions was recorded with other images, and record its failure then.

    Older versions recorded an opening with the images of any folder, so their studies could not be retrained.
    """
    from mhist_tune.data import holdout  # imports torch

    if "test_rows_sha256" in study.dataset or openings.has_predictions(storage, study, opening.id):
        return False
    if holdout.test_fingerprint(data_root) == opening.fingerprint:
        return False
    openings.record_failure(storage, study, opening.id, "it was recorded with the images of another folder")
    return True


def _user() -> str:
    """Return the user's name; `user 12345` for a number that has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"user {os.getuid()}"


def _payload(
    study: Study,
    searched: Sequence[SearchSlot],
    confirmation: Confirmation | None,
    chosen: SearchSlot,
    seed: int,
) -> RetrainPayload:
    """Return the payload of one retraining slot.

    The stop epoch is the confirmed one; without a confirmation, the median best epoch of the search trials with equal
    params.
    """
    outcome = chosen.outcome
    finalist = confirmation.of_trial(chosen.trial_number) if confirmation and chosen.trial_number is not None else None
    params = finalist.candidate.params if finalist else selection.params_of(chosen)
    best_epochs = [
        selection.best_epoch_of(slot)
        for slot in searched
        if selection.is_complete(slot) and selection.params_of(slot) == params
    ]
    return RetrainPayload(
        trial=_number_of(chosen),
        params=params,
        seed=seed,
        stop_epoch=finalist.stop_epoch if finalist else int(statistics.median_low(best_epochs)),
        best_epoch=outcome.best_epoch if outcome else None,
        stopped_epoch=outcome.stopped_epoch if outcome else None,
        configured_epochs=study.definition.hyperparameters(params).epochs,
    )


def _number_of(slot: SearchSlot) -> int:
    assert slot.trial_number is not None  # it has an outcome
    return slot.trial_number
