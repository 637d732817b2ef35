"""Reporting checklists: complete, their sections exist, and each item says what the author must add."""

import json
import re
from pathlib import Path

import pytest

from mhist_tune.cli.results import CHECKLISTS
from mhist_tune.definition.about import DATA_FACTS, STUDY_FACTS
from mhist_tune.definition.study_file import parse
from mhist_tune.report import about, checklist, checklist_files, files
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from tests.conftest import Run
from tests.report import test_gain
from tests.support import made_up

NUMBERS = {  # as published
    "tripod-ai": "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c",
    "claim": " ".join(map(str, range(1, 45))),
    "stard-ai": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15a 15b 15c 15d 16a 16b 16c 17a 17b 18 19 20 21 22 23 24 25 26a 26b "
    "27 28 29 30 31 32 33 34 35 36 37 38 39 40a 40b",
    "reforms": "1a 1b 1c 2a 2b 2c 2d 2e 3a 3b 3c 3d 3e 3f 3g 4a 4b 4c 5a 5b 5c 5d 5e 5f 6a 6b 6c 7a 7b 7c 8a 8b",
}
ONLY_SOMEWHERE = {"Beside published results"}
"""Sections that neither report here has: those of a report on MHIST."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of three reports, which together have every section."""
    root = tmp_path_factory.mktemp("reports")
    groups = [f"patient {n // 2}" for n in range(len(made_up.VOTES))]
    with open_storage(f"sqlite:///{root}/storage/studies.db") as storage:
        test_gain.open_test(storage, test_gain.confirmed_study(storage), trial=1, default=0)
        grouped = made_up.create(storage, "grouped")
        made_up.open_test(storage, grouped, trial=0)
        made_up.retrain(storage, grouped, n_slots=3, groups=groups)
        searched_study(storage)
        for name in ("small", "grouped", "wide"):
            files.write(storage, name, root / name)
    return [root / name for name in ("small", "grouped", "wide")]


def searched_study(storage: Storage) -> None:
    """Store the study "wide": a retrained trial of a search whose scores follow from the learning rate."""
    text = '[study]\nname = "wide"\nn_trials = 24\n[fixed]\nmodel = "fcnn"\nweights = "random"\nimage_size = 8\n'
    definition = parse(f"{text}[space]\nlearning_rate = {{ low = 1e-5, high = 1e-2, log = true }}\n", "wide")
    sets = {"train": [["a.png", 0, 1, None]], "val": [["b.png", 1, 6, None]]}
    study = studies.create_study(storage, definition, dataset={"fingerprint": "f"}, image_sets=sets)
    for number in range(24):
        score = 0.2 + 0.03 * number
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        record_epoch(storage, claim, epoch=1, score=score, value=score, metrics={"val_f1": score, "elapsed_s": 1.0})
        ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
        params = {"learning_rate": 10 ** (-5 + number / 8)}
        end = {"value": score, "best_score": score, "best_epoch": 1, "stopped_epoch": 1}
        ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE, params=params, **end))
        assert ledger.finish(storage, claim)
    made_up.open_test(storage, study, trial=0)
    made_up.retrain(storage, study, n_slots=2)


def headings(folder: Path) -> list[str]:
    return re.findall(r"^## (.+)$", (folder / "report.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("key", CHECKLISTS)
def test_a_checklist_has_every_item_of_its_source(key: str) -> None:
    """The numbers are the published ones in their order; each item is answered by something that is known."""
    found = checklist.load(key)
    assert [item.number for item in found.items] == NUMBERS[key].split()
    assert found.url.startswith("https://doi.org/10.")
    for item in found.items:
        assert item.sections or item.about or item.author or item.not_applicable, item.number
        assert {*item.about} <= {*STUDY_FACTS, *DATA_FACTS}, item.number


def test_the_command_line_knows_every_checklist() -> None:
    """Each file has its choice of `report --checklist`, and each choice its file."""
    assert sorted(CHECKLISTS) == checklist.keys()


@pytest.mark.parametrize("key", CHECKLISTS)
def test_every_named_section_exists_in_a_report(key: str, folders: list[Path]) -> None:
    """A title that no report has would be a promise without a section."""
    known = {title for folder in folders for title in headings(folder)} | ONLY_SOMEWHERE
    assert {title for item in checklist.load(key).items for title in item.sections} - known == set()


def test_headings_are_anchors_of_the_page_and_unique(folders: list[Path]) -> None:
    """Each section of report.md is in report.html under the same anchor, and no anchor is there twice."""
    for folder in folders:
        ids = re.findall(r' id="([^"]+)"', re.sub(r"(?s)<svg.*?</svg>", "", (folder / "report.html").read_text()))
        assert len(ids) == len(set(ids))
        assert {checklist_files.anchor(title) for title in headings(folder)} <= set(ids)


@pytest.mark.parametrize("key", CHECKLISTS)
def test_every_link_leads_into_the_report(key: str, run: Run, tmp_path: Path) -> None:
    """The command writes Markdown, page and JSON with the same answers, and prints the Markdown."""
    (tmp_path / "study.toml").write_text('[about]\nfunding = "a foundation"\npopulation = "adults"\n')
    with open_storage(f"sqlite:///{tmp_path}/studies.db") as storage:
        study = made_up.create(storage)
        made_up.open_test(storage, study)
        made_up.retrain(storage, study, n_slots=2)
    folder = tmp_path / "report"
    options = ["--storage", f"sqlite:///{tmp_path}/studies.db", "--output", str(folder), "--checklist", key]
    code, out, err = run("report", "tiny", *options, "--about", str(tmp_path / "study.toml"))

    assert code == 0, err
    markdown = (folder / f"checklist-{key}.md").read_text()
    assert out == markdown
    page = (folder / f"checklist-{key}.html").read_text()
    ids = re.findall(r' id="([^"]+)"', (folder / "report.html").read_text())
    assert set(re.findall(r'href="report.html#([^"]+)"', page)) == set(re.findall(r"\(report.md#([^)]+)\)", markdown))
    assert set(re.findall(r'href="report.html#([^"]+)"', page)) <= set(ids)
    document = json.loads((folder / f"checklist-{key}.json").read_text())
    by_state = {item["number"]: item["state"] for item in document["items"]}
    assert list(by_state) == NUMBERS[key].split()
    assert json.loads(run("report", "tiny", *options, "--json")[1])["items"] != document["items"]  # without the facts


def test_states_follow_from_sections_and_facts() -> None:
    """An item is answered only if nothing is left to add; an absent section is no answer."""
    items = tuple(
        checklist.Item(number, "topic", "asks", **fields)
        for number, fields in {
            "section": {"sections": ("Methods",)},
            "no section": {"sections": ("Calibration",)},
            "fact": {"about": ("funding",)},
            "no fact": {"about": ("ethics",)},
            "both": {"sections": ("Methods",), "about": ("ethics", "funding")},
            "author": {"author": "the title"},
            "not": {"not_applicable": "a program reads it"},
        }.items()
    )
    facts = about.About([about.Fact("funding", "study", "who paid", "a foundation", "at creation")])
    source = checklist.Checklist("key", "name", "1", "source", "url", "wording", items)
    document = checklist.answered(source, "tiny", facts, ["Methods"])

    assert {item.number: (item.state, item.sections) for item in document.items} == {
        "section": ("in the report", ["Methods"]),
        "no section": ("by the author", []),
        "fact": ("in the report", [about.TITLE]),
        "no fact": ("by the author", []),
        "both": ("in part", ["Methods", about.TITLE]),
        "author": ("by the author", []),
        "not": ("does not apply", []),
    }
    assert document.items[4].author == [f"ethics: {STUDY_FACTS['ethics']}"]
    assert sum(checklist.counts(document).values()) == len(items)
