"""Tests of mhist_tune.training.fit: reproducibility first."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.definition.scores import Score
from mhist_tune.errors import UsageError
from mhist_tune.training import forward
from mhist_tune.training.checkpoints import writer as checkpoint_writer
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import Diverged, EpochResult, FitResult
from mhist_tune.training.models import create_model
from mhist_tune.training.prediction import predict

CPU = torch.device("cpu")
GOLDEN_TRAIN_LOSSES = [0.7037647, 0.6484672, 0.6618774, 0.6659396]
GOLDEN_VAL_LOSSES = [0.660251, 0.6573154, 0.626303, 0.569704]
TIMED = ("elapsed_s", "images_per_s", "peak_memory_bytes")


def image_set(n: int, *, seed: int = 0, size: int = 32) -> ImageSet:
    """Return images whose class shows as a faint tint, so that a few epochs learn something but not everything."""
    generator = torch.Generator().manual_seed(seed)
    votes = torch.arange(n) % 8
    labels = (votes >= 4).float()
    images = torch.rand(n, 3, size, size, generator=generator)
    images[:, 0] += (labels * 0.1)[:, None, None]
    return ImageSet(
        pixels=(images / 1.1 * 255).to(torch.uint8),
        labels=labels,
        votes=votes,
        names=tuple(f"{index:03}.png" for index in range(n)),
        groups=None,
    )


TRAIN, VAL = image_set(26, seed=1), image_set(16, seed=2)


def hyperparameters(**options: Any) -> Hyperparameters:
    defaults = {
        "model": "test_vit",
        "weights": "random",
        "image_size": 32,
        "epochs": 4,
        "learning_rate": 1e-3,
        "effective_batch_size": 8,
        "micro_batch_size": 4,
        "dropout_placement": "head+last1",
        "sampling": "random_over",
        "precision": "fp32",
        "memory_format": "contiguous",
        "compile": "off",
    }
    return Hyperparameters(**defaults | options)


def ignore(*_: object) -> None:
    """Hear and do nothing."""


def trained(hp: Hyperparameters, *, seed: int = 7, val: ImageSet | None = VAL, **options: Any) -> FitResult:
    arguments: dict[str, Any] = {"device": CPU, "checkpoint": None, "on_epoch": ignore, "on_step": ignore}
    try:
        return fit(hp, options.pop("train", TRAIN), val, seed=seed, **arguments | options)
    finally:
        if writer := options.get("checkpoint"):
            writer.finish()


def comparable(history: list[EpochResult]) -> list[tuple[Any, ...]]:
    """Return everything of a history but its timings."""
    return [
        (
            result.epoch,
            {name: value for name, value in result.metrics.items() if name not in TIMED},
            None if result.probabilities is None else result.probabilities.tolist(),
            result.best_score,
            result.best_epoch,
        )
        for result in history
    ]


def assert_same(first: FitResult, second: FitResult) -> None:
    """Compare two runs bit by bit, timings apart."""
    assert comparable(first.history) == comparable(second.history)
    assert (first.best_epoch, first.best_score, first.stopped) == (second.best_epoch, second.best_score, second.stopped)
    assert first.state_dict.keys() == second.state_dict.keys()
    assert all(torch.equal(first.state_dict[name], second.state_dict[name]) for name in first.state_dict)


def losses(result: FitResult, name: str) -> list[float]:
    return [float(epoch.metrics[name] or 0.0) for epoch in result.history]


class Stopped(Exception):
    """Raised by a test from a callback."""


def writer_in(folder: Path, token: int = 1) -> CheckpointWriter:
    return CheckpointWriter(CheckpointStore(folder), "run", token)


def stop_after(last_epoch: int) -> Callable[[EpochResult], None]:
    def on_epoch(result: EpochResult) -> None:
        if result.epoch == last_epoch:
            raise Stopped

    return on_epoch


def test_golden_losses() -> None:
    """Four epochs of test_vit on generated images give these losses; a change of the method shows here."""
    result = trained(hyperparameters(dropout_placement="none", learning_rate=1e-4))

    np.testing.assert_allclose(losses(result, "train_loss"), GOLDEN_TRAIN_LOSSES, rtol=1e-4)
    np.testing.assert_allclose(losses(result, "val_loss"), GOLDEN_VAL_LOSSES, rtol=1e-4)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_the_same_seed_gives_the_same_run(model: str) -> None:
    """Two runs agree bit by bit, whatever was drawn in between; another seed gives another run."""
    hp = hyperparameters(model=model, dropout_placement="head", epochs=2)
    first = trained(hp)
    torch.rand(3)

    assert_same(first, trained(hp))
    assert losses(first, "train_loss") != losses(trained(hp, seed=8), "train_loss")


@pytest.mark.parametrize("last_epoch", [1, 2, 3, 4])
@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_epoch: int, schedule: str
) -> None:
    """Stopped after any epoch and resumed from its checkpoint, a run is bitwise the uninterrupted one."""
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", 1e9)
    hp = hyperparameters(learning_rate_schedule=schedule)
    writer = writer_in(tmp_path)
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer, on_epoch=stop_after(last_epoch))
    saved = writer.load()
    assert saved is not None
    assert len(saved["history"]) == last_epoch
    torch.rand(5)
    heard: list[EpochResult] = []

    resumed = trained(hp, checkpoint=writer_in(tmp_path, token=2), on_epoch=heard.append)

    uninterrupted = trained(hp)
    assert_same(resumed, uninterrupted)
    assert comparable(heard) == comparable(uninterrupted.history)


def test_resumed_equals_uninterrupted_in_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of the loss goes on as it was: begun anew it would overflow, and leave an update out, once more."""
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", 1e9)
    hp = hyperparameters(precision="fp16", epochs=2, learning_rate=1e-5, effective_batch_size=2)
    steep = dataclasses.replace(TRAIN, labels=TRAIN.labels * 3)
    writer = writer_in(tmp_path)
    with pytest.raises(Stopped):
        trained(hp, train=steep, checkpoint=writer, on_epoch=stop_after(1))
    saved = writer.load()
    assert saved is not None
    assert saved["scaler"]["scale"] < 2.0**16

    assert_same(trained(hp, train=steep, checkpoint=writer_in(tmp_path, token=2)), trained(hp, train=steep))


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_resumed_equals_uninterrupted_with_batch_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_format: str
) -> None:
    """Running statistics are part of the checkpoint, also where the best epoch is not the last."""
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", 1e9)
    hp = hyperparameters(
        model="test_resnet",
        dropout_placement="none",
        optimizer="adam",
        weight_decay=0.01,
        memory_format=memory_format,
    )
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer_in(tmp_path), on_epoch=stop_after(2))

    assert_same(trained(hp, checkpoint=writer_in(tmp_path)), trained(hp))


@pytest.mark.parametrize(("share", "saved_epochs"), [(0.0, [1, 4]), (1e9, [1, 2, 3, 4])])
def test_saving_keeps_to_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, saved_epochs: list[int]
) -> None:
    """The first epoch, which measures the cost of saving, and the last are always saved; others when they are due."""
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", share)
    writer, seen = writer_in(tmp_path), []

    def on_epoch(result: EpochResult) -> None:
        writer.wait()
        saved = writer.load()
        if saved is not None and len(saved["history"]) == result.epoch:
            seen.append(result.epoch)

    trained(hyperparameters(), checkpoint=writer, on_epoch=on_epoch)

    assert seen == saved_epochs


def test_a_torn_checkpoint_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the newest file torn, the run resumes from the one before and still ends the same."""
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", 1e9)
    hp, writer = hyperparameters(), writer_in(tmp_path)
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer, on_epoch=stop_after(3))
    newest = max((tmp_path / "run").iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    saved = writer.load()
    assert saved is not None
    assert len(saved["history"]) == 2

    assert_same(trained(hp, checkpoint=writer), trained(hp))


def test_exhausted_patience_trains_no_epoch_on_resume(tmp_path: Path) -> None:
    """A run that stopped early is over: resuming repeats its history and takes no step."""
    hp = hyperparameters(epochs=30, patience=2, learning_rate=1e-10)
    first = trained(hp, checkpoint=writer_in(tmp_path))
    assert first.stopped == "patience"
    assert len(first.history) == first.best_epoch + 2
    heard: list[EpochResult] = []

    def no_step(*_: int) -> None:
        raise AssertionError("a step was trained")

    again = trained(hp, checkpoint=writer_in(tmp_path), on_step=no_step, on_epoch=heard.append)

    assert_same(again, first)
    assert comparable(heard) == comparable(first.history)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Seed, data and hyperparameters must agree; the place of the first weights need not."""
    hp = hyperparameters(epochs=1)
    trained(hp, checkpoint=writer_in(tmp_path))

    with pytest.raises(ValueError, match="another run"):
        trained(hp, checkpoint=writer_in(tmp_path), seed=8)
    with pytest.raises(ValueError, match="another run"):
        trained(dataclasses.replace(hp, learning_rate=1e-4), checkpoint=writer_in(tmp_path))
    trained(dataclasses.replace(hp, weights="moved.safetensors"), checkpoint=writer_in(tmp_path))


@pytest.mark.parametrize("model", ["test_vit", "fcnn"])
def test_accumulation_changes_nothing_without_batch_norm(model: str) -> None:
    """8 x 1 and 2 x 4 micro-batches give the same run, augmentation and a last smaller update included."""
    hp = hyperparameters(model=model, dropout_placement="none", effective_batch_size=8, epochs=2)

    runs = [trained(dataclasses.replace(hp, micro_batch_size=micro)) for micro in (8, 2, 1)]

    for run in runs[1:]:
        np.testing.assert_allclose(losses(run, "train_loss"), losses(runs[0], "train_loss"), rtol=1e-4)
        np.testing.assert_allclose(losses(run, "val_loss"), losses(runs[0], "val_loss"), rtol=1e-4)


def test_the_micro_batch_is_part_of_the_method_with_batch_norm() -> None:
    """With BatchNorm 1 x 8 and 4 x 2 are two methods, and a checkpoint of one is not of the other."""
    hp = hyperparameters(model="test_resnet", dropout_placement="none", epochs=1)

    runs = [trained(dataclasses.replace(hp, micro_batch_size=micro)) for micro in (8, 2)]

    assert abs(losses(runs[0], "train_loss")[0] - losses(runs[1], "train_loss")[0]) > 1e-3


def test_a_last_single_image_does_not_break_batch_norm() -> None:
    """An epoch of 17 images in updates of 8 trains, though BatchNorm cannot see one image."""
    hp = hyperparameters(model="resnet18", dropout_placement="none", micro_batch_size=8, sampling="none", epochs=1)
    steps: list[tuple[int, int]] = []

    trained(hp, train=image_set(17), on_step=lambda done, total: steps.append((done, total)))

    assert steps == [(8, 17), (12, 17), (17, 17)]


def test_it_learns() -> None:
    """Loss falls and the validation AUROC of a faint tint rises well above chance."""
    hp = hyperparameters(epochs=12, dropout_placement="none", augmentation="flip", sampling="none")

    result = trained(hp, train=image_set(64, seed=1), val=image_set(64, seed=2))

    assert losses(result, "train_loss")[-1] < losses(result, "train_loss")[0]
    assert losses(result, "val_auroc")[-1] > 0.8


def test_the_best_epoch_is_kept() -> None:
    """The weights are those of the first epoch with the highest val_f1, and predict reproduces its probabilities."""
    hp = hyperparameters(epochs=6)

    result = trained(hp)

    f1s = losses(result, "val_f1")
    best = result.history[result.best_epoch - 1]
    assert result.best_epoch == int(np.argmax(f1s)) + 1
    assert result.best_score == max(f1s)
    assert best.probabilities is not None
    assert np.array_equal(predict(result.state_dict, hp, VAL, device=CPU), best.probabilities)
    np.testing.assert_allclose(
        predict(result.state_dict, hp, VAL, device=CPU, batch_size=5), best.probabilities, rtol=1e-4
    )
    assert [epoch.probabilities is not None for epoch in result.history] == [
        epoch.best_epoch == epoch.epoch for epoch in result.history
    ]


@pytest.mark.parametrize(("monitor", "sign"), [("auroc", 1), ("loss", -1)])
def test_another_metric_may_choose_the_best_epoch(tmp_path: Path, monitor: str, sign: int) -> None:
    """The epoch is that of the best AUROC or loss, resumed or not; the value stays the F1 of that epoch."""
    hp = hyperparameters(epochs=4, monitor=monitor)
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer_in(tmp_path), on_epoch=stop_after(1))

    result = trained(hp, checkpoint=writer_in(tmp_path))

    scores = [sign * value for value in losses(result, f"val_{monitor}")]
    best = result.history[result.best_epoch - 1]
    assert result.best_epoch == int(np.argmax(scores)) + 1
    assert result.best_score == best.metrics["val_f1"]
    assert [epoch.best_epoch == epoch.epoch for epoch in result.history] == [
        all(score > earlier for earlier in scores[:index]) for index, score in enumerate(scores)
    ]
    assert best.probabilities is not None
    assert np.array_equal(predict(result.state_dict, hp, VAL, device=CPU), best.probabilities)


def test_without_an_auroc_the_first_epoch_is_kept() -> None:
    """One class in validation gives no AUROC, and the run still ends with weights and a value."""
    positives = VAL.take(np.flatnonzero(VAL.labels.numpy() == 1))

    result = trained(hyperparameters(epochs=2, monitor="auroc"), val=positives)

    assert result.best_epoch == 1
    assert result.best_score is not None


def test_a_checkpoint_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    """A hyperparameter that the version did not have counts as its default; an unknown field of an epoch is ignored."""
    hp = hyperparameters(model="fcnn", dropout_placement="none", epochs=2)
    writer = writer_in(tmp_path)
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer, on_epoch=stop_after(1))
    saved = writer.load()
    assert saved is not None
    for name in ("monitor", "freeze", "labels"):
        del saved["identity"]["hyperparameters"][name]
    saved["history"][0]["is_best"] = True
    writer.save(saved, epoch=1)
    writer.wait()

    with pytest.raises(ValueError, match="another run"):
        trained(dataclasses.replace(hp, labels="votes"), checkpoint=writer)
    assert_same(trained(hp, checkpoint=writer), trained(hp))


def test_a_hybrid_of_convolution_and_attention_trains() -> None:
    """CoaT at 32 px: its scales come together in the head, in training and in validation, and the loss moves."""
    hp = hyperparameters(model="coat_tiny", dropout_placement="head", freeze="first1", epochs=2)

    result = trained(hp, train=TRAIN.take(np.arange(12)), val=VAL.take(np.arange(8)))

    assert len(result.history) == 2
    assert len(set(losses(result, "train_loss"))) == 2


def test_frozen_parts_end_as_they_began() -> None:
    """After a run the frozen tensors of two learning rates agree, BatchNorm's statistics among them."""
    runs = [
        trained(
            hyperparameters(model="test_resnet", dropout_placement="none", freeze="first1", epochs=1, learning_rate=r)
        )
        for r in (1e-2, 1e-3)
    ]

    same = {name for name, tensor in runs[0].state_dict.items() if torch.equal(tensor, runs[1].state_dict[name])}
    frozen = {name for name in runs[0].state_dict if name.startswith(("conv1", "bn1", "layer1"))}
    assert {name for name in same if not name.endswith("num_batches_tracked")} == {
        name for name in frozen if not name.endswith("num_batches_tracked")
    }


def test_without_validation_it_trains_to_the_stop_epoch() -> None:
    """The schedule is that of all epochs, cut; the last weights are kept and nothing is validated."""
    hp = hyperparameters(learning_rate_schedule="cosine", patience=1)
    whole = trained(hp, val=None)

    cut = trained(hp, val=None, stop_epoch=2)

    assert len(whole.history) == 4
    assert comparable(cut.history) == comparable(whole.history[:2])
    assert (cut.best_epoch, cut.best_score, cut.stopped) == (2, None, "epochs")
    assert not any(name.startswith("val_") for name in cut.history[0].metrics)
    assert cut.history[0].probabilities is None
    assert not any(torch.equal(cut.state_dict[n], whole.state_dict[n]) for n in ("head.weight", "cls_token"))


def test_excluded_votes_are_left_out_of_training_only() -> None:
    """Excluding votes equals training on the other images; validation keeps all of its images."""
    hp = hyperparameters(epochs=1)
    others = TRAIN.take(np.flatnonzero(~np.isin(TRAIN.votes.numpy(), (3, 4))))

    excluded = trained(dataclasses.replace(hp, exclude_votes=(3, 4)))

    assert comparable(excluded.history) == comparable(trained(hp, train=others).history)
    assert excluded.history[0].probabilities is not None
    assert len(excluded.history[0].probabilities) == len(VAL)


@pytest.mark.parametrize("sampling", ["random_under", "smote", "adasyn", "adasyn_votes", "tomek"])
@pytest.mark.parametrize("is_ssa_rarer", [True, False])
def test_every_sampling_trains_and_resumes(tmp_path: Path, sampling: str, is_ssa_rarer: bool) -> None:
    """Each strategy trains with either class the rarer, on new images augmented, and resumes bitwise."""
    chosen = (TRAIN.labels.numpy() == is_ssa_rarer).nonzero()[0][6:]
    train = TRAIN.take(np.setdiff1d(np.arange(len(TRAIN)), chosen))
    hp = hyperparameters(model="fcnn", dropout_placement="none", sampling=sampling, augment_scope="resampled", epochs=2)
    with pytest.raises(Stopped):
        trained(hp, train=train, checkpoint=writer_in(tmp_path), on_epoch=stop_after(1))

    record: dict[str, Any] = {}
    resumed = trained(hp, train=train, checkpoint=writer_in(tmp_path), on_sampling=record.update)

    assert_same(resumed, trained(hp, train=train))
    assert (record["features_sha256"] is None) == (sampling in ("random_under", "smote", "adasyn_votes"))
    assert record["n_train"] == len(train)


def test_soft_labels_are_the_share_of_votes() -> None:
    """Training aims at votes / 7; validation still counts classes."""
    hp = hyperparameters(epochs=1, labels="votes", sampling="none")
    soft = dataclasses.replace(TRAIN, labels=TRAIN.votes.float() / 7)

    result = trained(hp)

    as_given = trained(dataclasses.replace(hp, labels="majority"), train=soft)
    assert comparable(result.history) == comparable(as_given.history)
    assert comparable(result.history) != comparable(trained(dataclasses.replace(hp, labels="majority")).history)


def test_a_subset_trains_on_its_images_alone() -> None:
    """With n_per_class an epoch has that many images of each class, whatever else is in the split."""
    steps: list[int] = []
    record: dict[str, Any] = {}
    hp = hyperparameters(epochs=1, n_per_class=5)

    trained(hp, on_step=lambda _, total: steps.append(total), on_sampling=record.update)

    assert set(steps) == {10}
    assert record["n_train"] == 10


def test_excluding_everything_is_an_error() -> None:
    """A run without a training image fails before the first epoch."""
    with pytest.raises(UsageError, match="no training image is left"):
        trained(hyperparameters(exclude_votes=tuple(range(8))))


def test_an_unresolved_precision_is_an_error() -> None:
    """Which number format trained a model must be known before, not chosen on the way."""
    with pytest.raises(ValueError, match="not resolved"):
        trained(hyperparameters(precision="auto"))


def test_bf16_trains() -> None:
    """Training in bf16 resumes nothing from fp32: it is close and not the same."""
    fp32, bf16 = (trained(hyperparameters(precision=precision, epochs=2)) for precision in ("fp32", "bf16"))

    np.testing.assert_allclose(losses(bf16, "train_loss"), losses(fp32, "train_loss"), rtol=0.1)
    assert losses(bf16, "train_loss") != losses(fp32, "train_loss")


def test_a_loss_that_is_not_a_number_ends_the_run() -> None:
    """NaN in one label raises Diverged with the epoch, after the whole epoch and before it is reported."""
    broken = dataclasses.replace(TRAIN, labels=TRAIN.labels.clone())
    broken.labels[3] = float("nan")
    heard: list[EpochResult] = []

    with pytest.raises(Diverged, match="training loss became nan in epoch 1") as caught:
        trained(hyperparameters(sampling="none"), train=broken, on_epoch=heard.append)
    assert caught.value.epoch == 1
    assert heard == []


def test_a_weight_that_is_not_a_number_ends_the_run() -> None:
    """Gradients that overflow while the loss stays finite are found by their weights."""
    broken = dataclasses.replace(TRAIN, labels=TRAIN.labels.clone())
    broken.labels[3] = 1e38

    with pytest.raises(Diverged, match="a weight is not finite"):
        trained(hyperparameters(sampling="none", effective_batch_size=64), train=broken)


def test_a_step_may_stop_the_run(tmp_path: Path) -> None:
    """What on_step raises comes out of fit at once, and no half epoch is saved."""
    writer = writer_in(tmp_path)

    def on_step(done: int, total: int) -> None:
        if done > total // 2:
            raise Stopped

    with pytest.raises(Stopped):
        trained(hyperparameters(), checkpoint=writer, on_step=on_step)
    assert writer.load() is None


def test_one_class_in_validation_has_no_auroc() -> None:
    """val_auroc is None, which JSON can hold, and the run goes on."""
    positives = VAL.take(np.flatnonzero(VAL.labels.numpy() == 1))

    result = trained(hyperparameters(epochs=1), val=positives)

    assert result.history[0].metrics["val_auroc"] is None


def test_the_random_state_of_the_process_is_left_alone() -> None:
    """A run neither depends on the global generator nor moves it."""
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    trained(hyperparameters(epochs=1))

    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "model": "test_resnet",
            "dropout_placement": "head",
            "sampling": "smote",
            "augmentation": "flip_choice",
            "stain_jitter": 0.1,
            "optimizer": "sgd",
        },
        {"augment_scope": "resampled", "labels": "votes", "layer_decay": 0.7, "freeze": "stem"},
    ],
    ids=["plain", "all warps and stains", "layer groups"],
)
def test_an_epoch_waits_for_the_device_at_its_end_alone(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The meta device has no values: reading one before the last image is trained, or in evaluation, fails."""
    monkeypatch.setitem(forward.EVALUATION_BATCH, "meta", (1, 8))
    steps = list[tuple[int, int]]()
    hp = hyperparameters(**options)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        trained(hp, val=None, device=torch.device("meta"), on_step=lambda *step: steps.append(step))

    assert steps[-1][0] == steps[-1][1] > 0
    logits = forward.evaluate(create_model(hp).to("meta"), VAL.to(torch.device("meta")), hp)
    assert (logits.device.type, logits.shape) == ("meta", (len(VAL),))


@pytest.mark.parametrize("score", ["mean_f1", "f1", "auroc"])
def test_at_the_last_epoch_nothing_stops_a_run_early(tmp_path: Path, score: Score) -> None:
    """All epochs are trained whatever `patience` is. Weights, score and probabilities are the last epoch's, resumed or
    not.
    """
    hp = hyperparameters(epochs=4, patience=1, monitor="loss", learning_rate=1e-2)
    options: dict[str, Any] = {"score": score, "at": "last"}
    with pytest.raises(Stopped):
        trained(hp, checkpoint=writer_in(tmp_path), on_epoch=stop_after(2), **options)

    result = trained(hp, checkpoint=writer_in(tmp_path), **options)

    last = result.history[-1]
    assert (result.stopped, result.best_epoch, len(result.history)) == ("epochs", 4, 4)
    assert result.best_score == last.metrics[f"val_{score}"]
    assert [epoch.best_epoch for epoch in result.history] == [1, 2, 3, 4]
    assert last.probabilities is not None
    assert np.array_equal(predict(result.state_dict, hp, VAL, device=CPU), last.probabilities)


def test_the_best_epoch_is_that_of_the_score() -> None:
    """The monitor "score" is the run's score."""
    hp = hyperparameters(epochs=4, monitor="score")

    result = trained(hp, score="mean_f1")

    scores = losses(result, "val_mean_f1")
    assert result.best_epoch == int(np.argmax(scores)) + 1
    assert result.best_score == max(scores)
