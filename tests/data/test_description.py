"""The user's description of a data set, dataset.toml."""

from pathlib import Path

import pytest

from mhist_tune.data import description
from mhist_tune.data.synthesize import synthesize
from mhist_tune.errors import DataError


def test_a_data_set_may_have_no_description(tmp_path: Path) -> None:
    """Without the file nothing is known, which is no error."""
    assert description.read(tmp_path) is None


def test_the_fields_are_read(tmp_path: Path) -> None:
    """All four fields, in a file with a byte order mark too."""
    text = 'description = "oral tissue"\nsource = "Zenodo"\nvotes = "simulated"\nn_annotators = 3\n'
    (tmp_path / "dataset.toml").write_text(text, encoding="utf-8-sig")
    assert description.read(tmp_path) == {
        "description": "oral tissue",
        "source": "Zenodo",
        "votes": "simulated",
        "n_annotators": 3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('votes = "made up"', "votes must be one of real, simulated"),
        ('vote = "real"', "unknown field vote"),
        ("n_annotators = true", "n_annotators must be a whole number"),
        ("n_annotators = 0", "n_annotators must be a whole number"),
        ('source = "a\\nb"', "source must be a text"),
        ("description = 3", "description must be a text"),
        ("description = ", "cannot read"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """One line names the file and the field."""
    (tmp_path / "dataset.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        description.read(tmp_path)


def test_generated_images_say_that_their_votes_are_simulated(tmp_path: Path) -> None:
    """`data synthesize` writes the file beside the annotations."""
    synthesize(tmp_path, n_images=24, image_size=16)
    found = description.read(tmp_path)
    assert found is not None
    assert found["votes"] == "simulated"
