import numpy as np
import pytest
from PIL import Image

from mhist_tune import plots
from mhist_tune.difficulty import rates_by_votes


def colours(path):
    """The share of each colour of the palette in a PNG's pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    palette = {name: np.array([int(hexa[i : i + 2], 16) for i in (1, 3, 5)]) for name, hexa in PALETTE.items()}
    return {name: float((np.abs(pixels - rgb).max(axis=1) < 12).mean()) for name, rgb in palette.items()}


PALETTE = {"blue": plots.BLUE, "orange": plots.ORANGE}


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 8, size=200)
    labels = (votes >= 4).astype(int)
    return votes, labels, np.clip(votes / 7 + 0.3 * rng.normal(size=(10, 200)), 0, 1)


def test_roc_is_a_png_with_the_mean_drawn(tmp_path, predictions):
    """The ROC figure is a readable PNG on which the mean line shows."""
    _, labels, table = predictions
    plots.roc(labels, table, tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as image:
        assert image.format == "PNG"
        assert min(image.size) >= 600
    assert colours(tmp_path / "roc.png")["orange"] > 0.001


def test_roc_draws_each_seed(tmp_path, predictions):
    """Ten seeds leave more marks than one: each has its line."""
    _, labels, table = predictions
    marks = []
    for n_seeds in (1, 10):
        path = tmp_path / f"{n_seeds}.png"
        plots.roc(labels, table[:n_seeds], path)
        marks.append((np.asarray(Image.open(path).convert("L")) < 250).mean())
    assert marks[1] > 1.2 * marks[0]


def test_roc_writes_the_same_bytes_again(tmp_path, predictions):
    """A report made twice has identical figures."""
    _, labels, table = predictions
    for name in ("a.png", "b.png"):
        plots.roc(labels, table, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_votes_chart_shows_both_classes(tmp_path, predictions):
    """Bars of HP and of SSA both show, in their colours."""
    votes, labels, table = predictions
    plots.error_rates(rates_by_votes(votes, labels, table), tmp_path / "votes.png")
    assert all(share > 0.005 for share in colours(tmp_path / "votes.png").values())


def test_votes_chart_without_errors_or_images_is_drawn(tmp_path):
    """No error at all and vote counts without an image are charted, not refused."""
    plots.error_rates(rates_by_votes([0, 7], [0, 1], [[0.1, 0.9]]), tmp_path / "votes.png")
    with Image.open(tmp_path / "votes.png") as image:
        assert image.format == "PNG"
