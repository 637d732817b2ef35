import numpy as np
import pytest
from PIL import Image

from mhist_tune.plots import canvas, search
from mhist_tune.plots import predictions as plots
from mhist_tune.statistics.by_votes import error_rates
from mhist_tune.statistics.calibration import ReliabilityBin
from mhist_tune.statistics.roc import roc_band


def colours(path):
    """The share of each colour of the palette in a PNG's pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    palette = {name: np.array([int(hexa[i : i + 2], 16) for i in (1, 3, 5)]) for name, hexa in PALETTE.items()}
    return {name: float((np.abs(pixels - rgb).max(axis=1) < 12).mean()) for name, rgb in palette.items()}


PALETTE = {"blue": canvas.BLUE, "orange": canvas.ORANGE}


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 8, size=200)
    labels = (votes >= 4).astype(int)
    return votes, labels, np.clip(votes / 7 + 0.3 * rng.normal(size=(10, 200)), 0, 1)


def test_roc_is_a_png_with_the_mean_drawn(tmp_path, predictions):
    """The ROC figure is a readable PNG on which the mean line shows."""
    _, labels, table = predictions
    canvas.write_png(plots.roc(roc_band(labels, table)), tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as image:
        assert image.format == "PNG"
        assert min(image.size) >= 600
    assert colours(tmp_path / "roc.png")["orange"] > 0.001


def test_roc_draws_each_seed(tmp_path, predictions):
    """Ten seeds have ten lines, beside the mean, chance and the legend's own."""
    _, labels, table = predictions
    for n_seeds in (1, 10):
        (axes,) = plots.roc(roc_band(labels, table[:n_seeds])).axes
        assert len(axes.lines) == n_seeds + 3


def test_roc_writes_the_same_bytes_again(tmp_path, predictions):
    """A report made twice has identical figures."""
    _, labels, table = predictions
    for name in ("a.png", "b.png"):
        canvas.write_png(plots.roc(roc_band(labels, table)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_votes_chart_shows_both_classes(tmp_path, predictions):
    """Bars of HP and of SSA both show, in their colours."""
    votes, labels, table = predictions
    canvas.write_png(plots.error_rates(error_rates(votes, labels, table)), tmp_path / "votes.png")
    assert all(share > 0.005 for share in colours(tmp_path / "votes.png").values())


def test_votes_chart_without_errors_or_images_is_drawn(tmp_path):
    """No error at all and vote counts without an image are charted, not refused."""
    canvas.write_png(plots.error_rates(error_rates([0, 7], [0, 1], [[0.1, 0.9]])), tmp_path / "votes.png")
    with Image.open(tmp_path / "votes.png") as image:
        assert image.format == "PNG"


def test_precision_recall_has_a_line_for_each_seed_and_the_share_of_ssa(predictions):
    """Ten curves, one for the legend, and a level at the share of SSA images."""
    _, labels, table = predictions
    (axes,) = plots.precision_recall(labels, table).axes
    assert len(axes.lines) == 12
    assert axes.lines[-1].get_ydata()[0] == pytest.approx(labels.mean())


def test_votes_chart_has_intervals_and_the_pathologists(predictions):
    """Eight bars, eight intervals, and eight marks for the pathologists against the other six."""
    votes, labels, table = predictions
    (axes,) = plots.error_rates(error_rates(votes, labels, table)).axes
    assert len(axes.patches) == 8
    assert sum(len(one.get_segments()) for one in axes.collections) == 8
    assert axes.lines[-1].get_ydata()[3] == pytest.approx(5 / 7)


def test_reliability_draws_every_set_of_probabilities():
    """Three named curves and the diagonal are in the legend."""
    bins = [ReliabilityBin(10, 0.2, 0.1), ReliabilityBin(10, 0.8, 0.9)]
    (axes,) = plots.reliability({"raw": bins, "recalibrated": bins, "prior-corrected": bins}).axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["raw", "recalibrated", "prior-corrected", "perfect"]


def test_history_marks_the_best_so_far_among_complete_trials():
    """A pruned trial's higher score does not raise the line; the retrained trial is marked."""
    figure = search.history(
        [0, 1, 2], [0.5, 0.9, 0.6], ["COMPLETE", "PRUNED", "COMPLETE"], 2, ylabel="best validation F1"
    )
    (axes,) = figure.axes
    assert axes.lines[2].get_ydata().tolist() == [0.5, 0.5, 0.6]
    assert [text.get_text() for text in axes.texts] == ["retrained"]


def test_learning_curves_leave_gaps_and_do_without_the_search():
    """What was not measured is a gap; without the search's trial one panel shows the retrained seeds."""
    chosen = {"train_loss": [0.7, 0.5], "val_loss": [None, 0.6], "val_f1": [0.4, 0.5], "val_auroc": [None, 0.9]}
    figure = search.learning_curves(chosen, [[0.7, 0.6], [0.8, 0.5]])
    assert len(figure.axes) == 2
    assert np.isnan(figure.axes[0].lines[3].get_ydata()[0])
    assert len(search.learning_curves({}, [[0.7]]).axes) == 1


def test_importance_shows_the_largest_on_top():
    """Bars stand from the bottom up, so the first name is the last bar."""
    (axes,) = search.importance({"learning_rate": (0.7, 0.5, 0.8), "drop_rate": (0.3, 0.2, 0.5)}, "F1").axes
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.7]


def test_svg_takes_the_pages_colours_and_is_repeatable(predictions):
    """No fixed ink or palette colour is left, text stays text, a label is escaped, and the bytes are the same again."""
    _, labels, table = predictions
    first, again = (canvas.inline_svg(plots.roc(roc_band(labels, table)), 'a "b" <c>') for _ in range(2))
    assert first == again
    assert first.startswith("<svg")
    assert 'aria-label="a &quot;b&quot; &lt;c>"' in first
    assert canvas.INK not in first
    assert all(name in first for name in ("currentColor", "var(--blue)", "var(--orange)", "sensitivity"))
    assert "<metadata" not in first
