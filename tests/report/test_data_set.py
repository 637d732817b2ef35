"""What documents say of the data set and of the number format follows from what is recorded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition.study_file import parse
from mhist_tune.report import build, compare, compare_text, model_card, report_tables
from mhist_tune.report.document import Report
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage, open_storage
from tests.support import made_up

MODEL = {
    "trial": 3,
    "seed": 0,
    "positive_class": "SSA",
    "negative_class": "HP",
    "threshold": 0.5,
    "threshold_source": "0.5",
    "weights_sha256": "0",
    "preprocessing": {"image_size": 8, "resize": "none", "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


def reported(
    storage: Storage,
    name: str = "tiny",
    *,
    description: dict[str, Any] | None = None,
    groups: Sequence[str] | None = None,
    precision: str | None = None,
) -> Report:
    """Return the report of a study with this description of its data, groups of its test images and number format."""
    train = [[f"train{n}.png", n % 2, 7 * (n % 2), f"patient {n}" if groups else None] for n in range(4)]
    study = studies.create_study(
        storage,
        parse(made_up.DEFINITION.format(name=name), name),
        dataset={"fingerprint": "f", "description": description},
        image_sets={"train": train[:2], "val": train[2:]},
    )
    if precision:
        study = studies.set_setting(storage, study, "probed", {"precision": precision, "memory_format": "contiguous"})
    made_up.open_test(storage, study)
    made_up.retrain(storage, study, n_slots=3, groups=groups)
    return build.build(storage, name)


@pytest.mark.parametrize(
    ("groups", "n_shared", "sentence"),
    [
        (None, None, "No patient or slide is known, so one may be on both sides."),
        ([f"other {n // 2}" for n in range(40)], 0, "Patients or slides are known, and none is on both sides."),
        ([f"patient {n // 2}" for n in range(40)], 4, "4 patients or slides are on both sides."),
    ],
    ids=["unknown", "apart", "shared"],
)
def test_the_card_says_which_groups_are_on_both_sides(
    storage: Storage, groups: Sequence[str] | None, n_shared: int | None, sentence: str
) -> None:
    """The sentence follows from the stored groups of all partitions, not from the column; shared ones are a caveat."""
    report = reported(storage, groups=groups)
    assert report.data.n_groups_on_both_sides == n_shared
    assert sentence in model_card.render(report, MODEL)
    assert any("too good by an unknown amount" in caveat for caveat in report.caveats) == bool(n_shared)


@pytest.mark.parametrize(
    ("votes", "annotator", "labels"),
    [
        ("simulated", "simulated annotator", "seven simulated votes"),
        ("real", "pathologist", "seven votes of pathologists"),
        (None, "annotator", "the majority of seven votes."),
    ],
)
def test_only_real_votes_are_called_those_of_pathologists(
    storage: Storage, votes: str | None, annotator: str, labels: str
) -> None:
    """Tables, sentences and card name those who voted as the data set's description does."""
    fields = {"description": "oral tissue", "source": "Zenodo", "votes": votes}
    report = reported(storage, description={name: text for name, text in fields.items() if text})
    assert report_tables.vote_rows(report)[0][-1] == f"each {annotator} against the other six"
    assert labels in report.methods
    assert "The data set is described as: oral tissue." in report.methods
    card = model_card.render(report, MODEL)
    assert "Oral tissue. Source: Zenodo." in card
    assert "| source | Zenodo |" in card
    assert labels in card
    assert ("pathologists" in report.methods) == (votes == "real")
    assert any("simulated, so no rate" in caveat for caveat in report.caveats) == (votes == "simulated")


def test_methods_name_the_number_format(storage: Storage) -> None:
    """The recorded format is in the document and in Methods; without a record neither says anything."""
    report = reported(storage, precision="bf16")
    assert report.number_format == "bf16"
    assert "trained in the number format bf16" in report.methods
    unknown = reported(storage, "other")
    assert unknown.number_format is None
    assert "number format" not in unknown.methods


def test_studies_of_different_number_formats_carry_a_caveat(storage: Storage) -> None:
    """Two formats, or one that is not recorded, are named in a comparison; equal ones are not."""
    for name, precision in (("first", "bf16"), ("second", "fp32"), ("third", "fp32"), ("fourth", None)):
        reported(storage, name, precision=precision)

    def differing(*names: str) -> list[str]:
        return [line for line in compare_text.caveats(compare.build(storage, names)) if "number formats" in line]

    [caveat] = differing("first", "second")
    assert "first in bf16, second in fp32" in caveat
    assert differing("second", "third") == []
    assert "fourth in one that is not recorded" in differing("third", "fourth")[0]
