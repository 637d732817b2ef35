"""Tests of mhist_tune.training.sampling_figure, through the command that uses it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("strategy", ["adasyn", "random_under"])
def test_the_votes_of_an_epoch_are_drawn(run: Run, generated: Path, tmp_path: Path, strategy: str) -> None:
    """A figure is written beside the others and named."""
    code, out, err = run("data", "show", str(generated), "--output", str(tmp_path), "--sampling", strategy)

    assert code == 0, err
    assert f"votes-{strategy}.png" in out
    with Image.open(tmp_path / f"votes-{strategy}.png") as image:
        assert image.format == "PNG"


def test_an_unknown_strategy_is_refused(run: Run, generated: Path) -> None:
    """The line names those that there are, and nothing is written."""
    code, out, err = run("data", "show", str(generated), "--sampling", "smoet")

    assert code == 2
    assert "adasyn" in err
    assert not out
