"""Numbers, times and tables as people read them."""

import doctest
import math

import pytest

from mhist_tune import words


def test_what_is_not_known_is_a_dash() -> None:
    """None is shown, never an error or the word None."""
    assert words.number(None) == words.interval(None) == "-"
    assert words.score(None) == words.shortest(None) == "–"


def test_values_are_short() -> None:
    """Floats have four significant digits, a truth value and a whole number stay as they are."""
    assert [words.shortest(value) for value in (0.00012345, 12, True, math.inf, "adam")] == [
        "0.0001234",
        "12",
        "True",
        "inf",
        "adam",
    ]


@pytest.mark.parametrize(
    ("seconds", "measured", "rough"),
    [(55, "55.0 s", "55 s"), (600, "10.0 min", "10 min"), (9000, "2.5 h", "2 h 30 min")],
)
def test_times_are_in_the_unit_that_suits_them(seconds: float, measured: str, rough: str) -> None:
    """A measured time has one decimal, an estimated one whole units."""
    assert (words.duration(seconds), words.rough_duration(seconds)) == (measured, rough)


def test_tables_are_aligned() -> None:
    """The first column is to the left, the others to the right; Markdown says so in its rule."""
    rows = [["", "F1"], ["mean", "0.500"]]
    assert words.text_table(rows) == ["         F1", "mean  0.500"]
    assert words.markdown_table(rows) == ["|  | F1 |", "| --- | ---: |", "| mean | 0.500 |"]
    assert words.markdown_table(rows, is_aligned=True) == ["|      |    F1 |", "| ---- | ----: |", "| mean | 0.500 |"]


def test_the_sentence_says_what_was_measured() -> None:
    """The docstring's example, a memory limit, a failed candidate, and a definition that leaves nothing to measure."""
    assert doctest.testmod(words).failed == 0
    bare = {"precision": "fp16", "memory_format": "contiguous", "compile": "on"}
    timings = [{**bare, "images_per_s": None}]
    text = words.settings({**bare, "micro_batch_size": 4, "device": "d", "n_images": 2, "timings": timings})
    assert text.startswith("fp16 contiguous compiled, at most 4 images at once; ")
    assert text.endswith("fp16 contiguous compiled ruled out")
    assert words.settings({**bare, "timings": []}).endswith("; fixed by the definition")
