"""Ensembles of stored test probabilities: by hand, joined on the image's name, refused where images differ."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mhist_tune.definition import study_file
from mhist_tune.errors import UsageError
from mhist_tune.report import ensemble
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.openings import record_opening, record_reading
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.predictions import record_predictions, save_image_set
from tests.conftest import IMAGE_SETS

NAMES = ("a.png", "b.png", "c.png", "d.png", "e.png")
LABELS = {"a.png": 0, "b.png": 1, "c.png": 0, "d.png": 1, "e.png": 1}
FIRST = np.array([[0.1, 0.9, 0.6, 0.4, 0.8], [0.3, 0.7, 0.2, 0.5, 0.6]])
SECOND = np.array([[0.2, 0.5, 0.4, 0.9, 0.3], [0.4, 0.8, 0.1, 0.7, 0.9]])


@pytest.fixture
def storage(tmp_path: Path):
    with open_storage(f"sqlite:///{tmp_path}/ensemble.db") as opened:
        yield opened


def member(
    storage: Storage,
    name: str,
    probabilities: np.ndarray,
    *,
    names: Sequence[str] = NAMES,
    seeds: Sequence[int] = (0, 1),
    fingerprint: str = "e",
) -> None:
    """Store a study whose retrained models gave these probabilities [S, n] for the images `names`."""
    text = f'[study]\nname = "{name}"\nn_trials = 1\n'
    study = studies.create_study(
        storage, study_file.parse(text, name), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
    )
    opening = record_opening(
        storage,
        study,
        by="test",
        code_version="1",
        reason=lambda earlier: "first opening",
        payload={"trial": 0, "seeds": list(seeds)},
        test_rows="d",
    )
    slots = [RetrainPayload(trial=0, params={}, seed=seed, stop_epoch=1, configured_epochs=1) for seed in seeds]
    record_reading(storage, study, opening.id, fingerprint=fingerprint, slots=slots)
    rows = [[image, LABELS[image], 4 * LABELS[image], None] for image in names]
    save_image_set(storage, study, "test", rows)
    for row in probabilities:
        claim = ledger.claim(storage, study, ["retrain"], worker="w", observer=LeaseObserver())
        assert claim is not None
        record_predictions(storage, claim, "test", row)
        ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE))
        ledger.finish(storage, claim)


def test_members_are_averaged_per_seed_and_then_over_seeds(storage: Storage) -> None:
    """Each seed's ensemble is the members' mean; the ensemble of all is the mean of all, worked out by hand."""
    member(storage, "one", FIRST)
    member(storage, "two", SECOND)
    document = ensemble.build(storage, ["one", "two"])
    labels = np.array([LABELS[name] for name in NAMES])
    mean = (FIRST + SECOND) / 2

    assert document.seeds == [0, 1]
    for index in range(2):
        assert document.per_seed["auroc"].per_seed[index] == pytest.approx(roc_auc_score(labels, mean[index]))
        assert document.per_seed["log_loss"].per_seed[index] == pytest.approx(log_loss(labels, mean[index]))
    of_all = [0.25, 0.725, 0.325, 0.625, 0.65]
    assert document.over_seeds["log_loss"].mean == pytest.approx(log_loss(labels, of_all))
    assert document.over_seeds["auroc"].mean == 1.0
    assert document.members[0].metrics["log_loss"].per_seed[0] == pytest.approx(log_loss(labels, FIRST[0]))
    text = ensemble.to_text(document)
    assert "2 members, 2 seeds, 5 test images" in text
    assert "ensemble of all seeds" in text


def test_members_are_joined_on_the_name_of_the_image(storage: Storage) -> None:
    """A member that stored the same images in another order changes nothing."""
    order = [3, 0, 4, 2, 1]
    member(storage, "one", FIRST)
    member(storage, "two", SECOND)
    member(storage, "turned", SECOND[:, order], names=[NAMES[index] for index in order])

    straight = ensemble.build(storage, ["one", "two"])
    turned = ensemble.build(storage, ["one", "turned"])

    assert turned.per_seed == straight.per_seed
    assert turned.over_seeds == straight.over_seeds


def test_only_common_seeds_are_averaged(storage: Storage) -> None:
    """Seeds are paired by their number, whatever their order; members without a common one are refused."""
    member(storage, "one", FIRST)
    member(storage, "two", SECOND, seeds=(1, 2))
    member(storage, "three", SECOND, seeds=(5, 6))

    document = ensemble.build(storage, ["one", "two"])

    assert document.seeds == [1]
    mean = (FIRST[1] + SECOND[0]) / 2
    labels = np.array([LABELS[name] for name in NAMES])
    assert document.per_seed["log_loss"].mean == pytest.approx(log_loss(labels, mean))
    with pytest.raises(UsageError, match="no seed in common"):
        ensemble.build(storage, ["one", "three"])


def test_other_test_partitions_are_refused(storage: Storage) -> None:
    """Other images, or another fingerprint of the same names, cannot be averaged; nor can a study with itself."""
    member(storage, "one", FIRST)
    member(storage, "fewer", FIRST[:, :4], names=NAMES[:4])
    member(storage, "changed", SECOND, fingerprint="x")

    for other in ("fewer", "changed"):
        with pytest.raises(UsageError, match=f"one and {other} were tested on different test partitions"):
            ensemble.build(storage, ["one", other])
    for names in (["one"], ["one", "one"]):
        with pytest.raises(UsageError, match="two or more different studies"):
            ensemble.build(storage, names)
