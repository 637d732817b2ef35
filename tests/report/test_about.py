"""What the author says of a study: recorded or given for one report, shown, and listed where it is missing."""

import json
from pathlib import Path

import pytest

from mhist_tune.actions import verify
from mhist_tune.definition.about import DATA_FACTS, RATES, STUDY_FACTS
from mhist_tune.definition.study_file import parse
from mhist_tune.errors import UsageError
from mhist_tune.report import about, files, report_tables
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage, open_storage
from tests.support import made_up

ABOUT = '\n[about]\nfunding = "the | foundation"\nprice_per_hour = 2.5\n'


def retrained(storage: Storage) -> None:
    """Store a retrained study with facts in its definition and in the description of its data."""
    study = studies.create_study(
        storage,
        parse(made_up.DEFINITION.format(name="tiny") + ABOUT, "tiny"),
        dataset={"fingerprint": "f", "description": {"sites": "one centre", "votes": "simulated"}},
        image_sets={"train": [["train.png", 0, 1, None]], "val": [["val.png", 1, 6, None]]},
    )
    made_up.open_test(storage, study)
    made_up.retrain(storage, study, n_slots=2)


def test_facts_are_shown_and_missing_ones_are_listed(tmp_path: Path) -> None:
    """Recorded facts and those of files are in the report with their origin; all other names follow."""
    (tmp_path / "study.toml").write_text('[study]\nname = "x"\n[about]\nethics = "not needed"\nfunding = "none"\n')
    (tmp_path / "dataset.toml").write_text('sites = "two centres"\ndescription = "oral tissue"\n')
    with open_storage(f"sqlite:///{tmp_path}/storage/studies.db") as storage:
        retrained(storage)
        recorded = files.write(storage, "tiny", tmp_path / "recorded")
        given = about.read([tmp_path / "study.toml", tmp_path / "dataset.toml"])
        report = files.write(storage, "tiny", tmp_path / "given", given)
        checks = verify.of_records(storage, "tiny", tmp_path / "given")

    assert recorded.about.given == {"funding": "the | foundation", "price_per_hour": 2.5, "sites": "one centre"}
    assert report.about.given == {
        "ethics": "not needed",
        "funding": "none",
        "price_per_hour": 2.5,
        "description": "oral tissue",
        "sites": "two centres",
    }
    assert "described as: oral tissue." in report.methods
    origins = {fact.name: fact.recorded for fact in report.about.facts}
    assert (origins["funding"], origins["price_per_hour"], origins["dates"]) == (
        "for this report",
        "at creation",
        None,
    )
    table = dict(report_tables.tables(report))[about.TITLE]
    assert ["sites", "two centres"] in table
    assert table[-1][0] == "not given"
    texts = {*STUDY_FACTS, *DATA_FACTS} - {"currency"}
    assert {name.replace(" ", "_") for name in table[-1][1].split(", ")} == texts - set(report.about.given)
    assert not {*RATES} & set(report.about.missing)
    assert r"| funding | the \| foundation |" in (tmp_path / "recorded" / "report.md").read_text()
    assert '<td data-head="as the author gives it">two centres</td>' in (tmp_path / "given" / "report.html").read_text()
    written = json.loads((tmp_path / "given" / "report.json").read_text())["about"]["facts"]
    assert {fact["name"]: fact["value"] for fact in written if fact["value"] is not None} == report.about.given
    assert verify.is_repeated(checks)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("funding = ", "cannot read"),
        ('[about]\nsite = "x"\n', "unknown key"),
        ('sites = "x"\nfunding = "x"\n', "unknown field funding"),
        ("about = 3\n", "must be a table"),
    ],
)
def test_a_file_with_a_wrong_fact_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """The message names the file and what is wrong in it."""
    path = tmp_path / "facts.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem) as error:
        about.read([path])
    assert str(path) in str(error.value)
