"""Published results on MHIST: with source and flaws, and only beside results on the same test images."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.report import files, report_tables
from mhist_tune.report.references import published
from mhist_tune.storage.database import open_storage
from mhist_tune.words import interval, number
from tests.support import made_up

KEYS = {"source", "model", "n_seeds", "auroc", "auroc_std", "f1", "accuracy", "remark"}
"""The keys of a reference that programs know from the first release on."""


def test_every_result_has_a_source_a_number_and_its_flaws() -> None:
    """Metrics lie in 0..1, each result has an address, and none stands without a remark on its protocol."""
    for one in published():
        found = asdict(one)
        scores = [found[name] for name in ("auroc", "balanced_accuracy", "f1", "accuracy") if found[name] is not None]
        assert scores, one
        assert all(0 < score < 1 for score in scores), one
        assert one.where.startswith("https://") or (Path(__file__).parents[2] / one.where).is_file(), one
        assert one.remark, one
        assert one.training in ("all layers", "some layers", "a linear head"), one
        assert one.n_seeds is None or one.n_seeds >= 1
        assert found.keys() >= KEYS
    assert len({(one.source, one.model, one.training) for one in published()}) == len(published())


def test_selection_on_test_is_named_where_it_is_known() -> None:
    """The paper's, the leaderboard's and the method report's numbers rest on choices by test images."""
    for source in ("method report", "MHIST paper", "eva leaderboard"):
        rows = [one for one in published() if one.source.startswith(source)]
        assert rows
        assert all("test" in one.remark for one in rows)


def test_only_reports_on_mhist_have_the_table(tmp_path: Path) -> None:
    """There the study's balanced accuracy stands beside the others', with its interval; elsewhere nothing does."""
    votes = np.repeat(np.arange(8), MHIST_VOTES["test"])
    with open_storage(f"sqlite:///{tmp_path}/mhist.db") as storage:
        for name, of_images in (("on-mhist", votes), ("elsewhere", made_up.VOTES)):
            study = made_up.create(storage, name)
            made_up.open_test(storage, study, seeds=(0,))
            made_up.retrain(storage, study, n_slots=1, votes=of_images)
        on_mhist, elsewhere = (files.write(storage, name, tmp_path / name) for name in ("on-mhist", "elsewhere"))

    titles = [title for title, _ in report_tables.tables(on_mhist)]
    assert titles.index(report_tables.REFERENCES_TITLE) > titles.index("Metrics on the test partition")
    table = report_tables.reference_rows(on_mhist)
    assert len(table) == len(published()) + 2
    balanced = on_mhist.metrics["balanced_accuracy"]
    assert table[1][5] == f"{number(balanced.mean)} ({interval(balanced.ci95)})"
    assert balanced.ci95 is not None
    assert "Virchow2" in (tmp_path / "on-mhist" / "report.html").read_text()
    assert report_tables.REFERENCES_TITLE not in [title for title, _ in report_tables.tables(elsewhere)]
    assert elsewhere.references == []
    for kind in ("html", "md", "json"):
        assert "Virchow2" not in (tmp_path / "elsewhere" / f"report.{kind}").read_text()
    written = json.loads((tmp_path / "on-mhist" / "report.json").read_text())["references"]
    assert [one["model"] for one in written] == [one.model for one in published()]


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy", "f1", "accuracy"])
def test_numbers_are_shown_as_stated(metric: str, tmp_path: Path) -> None:
    """Three decimals hide nothing that changes a rank by more than .0005: no source states more than four."""
    for one in published():
        value = getattr(one, metric)
        assert value is None or round(value, 4) == value
