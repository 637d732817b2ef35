"""Generated images: MHIST's layout and proportions at any size, and a difficulty that is a number."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mhist_tune.data.annotations import REQUIRED_COLUMNS, read_annotations
from mhist_tune.data.synthesize import synthesize, votes_of_images
from mhist_tune.errors import DataError, UsageError
from mhist_tune.mhist import MHIST_VOTES


@pytest.fixture(scope="module")
def four_hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "data"
    synthesize(root, n_images=400, image_size=64, seed=0)
    return root


def pixels_and_labels(root: Path, partition: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    table = read_annotations(root, partition)
    return np.stack([np.asarray(Image.open(path)) for path in table.paths]), table.labels


def test_the_full_size_has_the_counts_of_mhist() -> None:
    """3,152 images have MHIST's counts of votes."""
    counts = Counter(votes_of_images(3152))
    assert {p: tuple(counts[p, votes] for votes in range(8)) for p in MHIST_VOTES} == MHIST_VOTES


def test_every_size_has_both_classes_in_both_partitions() -> None:
    """From 24 to 3,152: the given number of images, train and test at 2175 to 977, and no class absent or alone."""
    for n_images in range(24, 3153):
        counts = Counter(votes_of_images(n_images))
        assert sum(counts.values()) == n_images
        n_test = sum(counts["test", votes] for votes in range(8))
        assert abs(n_test - n_images * 977 / 3152) <= 0.5
        for partition in MHIST_VOTES:
            assert sum(counts[partition, votes] for votes in range(4)) >= 2
            assert sum(counts[partition, votes] for votes in range(4, 8)) >= 2


def test_the_layout_is_mhists(tmp_path: Path) -> None:
    """A table with MHIST's columns and CRLF, labels by the votes, one RGB PNG of the asked size per row, no more."""
    synthesize(tmp_path / "data", n_images=30, image_size=40, seed=3)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["annotations.csv", "dataset.toml", "images"]
    raw = (tmp_path / "data" / "annotations.csv").read_bytes()
    assert raw.count(b"\r\n") == 31
    header, *rows = csv.reader(raw.decode().splitlines())
    assert tuple(header) == REQUIRED_COLUMNS
    assert all((label == "SSA") == (int(votes) >= 4) for _, label, votes, _ in rows)
    assert {name for name, *_ in rows} == {path.name for path in (tmp_path / "data" / "images").iterdir()}
    for name, *_ in rows:
        with Image.open(tmp_path / "data" / "images" / name) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (40, 40))


def test_a_seed_is_a_set(tmp_path: Path) -> None:
    """The same seed writes the same bytes, another seed other ones."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(tmp_path / name, n_images=24, image_size=24, seed=seed)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()} for name in "abc"
    ]
    assert contents[0] == contents[1]
    assert all(contents[0][name] != contents[2][name] for name in contents[0] if name != "dataset.toml")


def test_colour_says_little(four_hundred: Path) -> None:
    """Logistic regression on colour statistics stays below .75 test AUROC."""

    def statistics(partition: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        pixels, labels = pixels_and_labels(four_hundred, partition)
        flat = pixels.reshape(len(pixels), -1, 3) / 255
        quantiles = np.percentile(flat, [5, 25, 50, 75, 95], axis=1).transpose(1, 0, 2).reshape(len(pixels), -1)
        return np.concatenate([flat.mean(1), flat.std(1), quantiles], axis=1), labels

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(*statistics("train"))
    features, labels = statistics("test")
    assert roc_auc_score(labels, model.predict_proba(features)[:, 1]) < 0.75


def test_shape_can_be_learned_and_not_perfectly(four_hundred: Path) -> None:
    """A small CNN trained from scratch for a few epochs reaches a test AUROC of .80 to .95."""
    images, labels = pixels_and_labels(four_hundred, "train")
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
    n_epochs, n_batches = 8, -(-len(images) // 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=n_epochs * n_batches)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    targets = torch.from_numpy(labels).float()
    for _ in range(n_epochs):
        for batch in torch.randperm(n_batches * 16).remainder(len(images)).view(n_batches, 16):
            turned = torch.rot90(inputs[batch], int(torch.randint(4, ())), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(model(turned).squeeze(1), targets[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    test_images, test_labels = pixels_and_labels(four_hundred, "test")
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(test_images).permute(0, 3, 1, 2).float() / 127.5 - 1).squeeze(1)
    assert 0.80 <= roc_auc_score(test_labels, logits.numpy()) <= 0.95


@pytest.mark.parametrize(("n_images", "image_size"), [(23, 64), (3153, 64), (24, 8)])
def test_impossible_sizes_are_refused(tmp_path: Path, n_images: int, image_size: int) -> None:
    """Too few, too many or too small: a usage error, and no folder is made."""
    with pytest.raises(UsageError, match="must be"):
        synthesize(tmp_path / "data", n_images=n_images, image_size=image_size)
    assert not (tmp_path / "data").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder with a table is refused and stays as it was; a folder with other files may be used."""
    (tmp_path / "annotations.csv").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        synthesize(tmp_path, n_images=24, image_size=24)
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.csv"]
    (tmp_path / "annotations.csv").rename(tmp_path / "notes.txt")
    synthesize(tmp_path, n_images=24, image_size=24)
    assert len(read_annotations(tmp_path, "train").names) == 17
