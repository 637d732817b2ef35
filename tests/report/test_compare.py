import json
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from mhist_tune.definition.study_file import parse
from mhist_tune.errors import StudyNotFoundError, UsageError
from mhist_tune.report import compare, compare_text
from mhist_tune.report.document import to_json
from mhist_tune.statistics import by_votes, descriptive, paired
from mhist_tune.storage import studies, thumbnails
from mhist_tune.storage.database import open_storage
from tests.support.made_up import DEFINITION, LABELS, create, open_test, retrain


@pytest.fixture
def storage(tmp_path):
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


def make(storage, name, *, n_seeds=6, noise=0.3, fingerprint="e" * 64, **made_up):
    """Store a study with finished seeds, and return their probabilities by seed."""
    study = create(storage, name)
    open_test(storage, study, seeds=range(n_seeds), fingerprint=fingerprint)
    return retrain(storage, study, n_slots=n_seeds, noise=noise, **made_up)


def test_the_primary_test_is_that_of_the_stored_probabilities(storage):
    """Difference, interval and p-value come from `paired` on what was stored; one pair leaves Holm's p as it is."""
    first, second = make(storage, "good", noise=0.1), make(storage, "bad", noise=0.6)
    document = compare.build(storage, ["good", "bad"])
    (pair,) = document.primary
    tables = [np.stack(list(one.values())) for one in (first, second)]
    (expected,) = paired.auroc_differences(LABELS, tables)
    assert (pair.first, pair.second) == ("good", "bad")
    assert pair.difference == pytest.approx(
        np.subtract(*(np.mean([roc_auc_score(LABELS, p) for p in table]) for table in tables))
    )
    assert (pair.p_value, pair.se) == (expected.p_value, expected.se)
    assert pair.p_holm == pair.p_value
    assert document.members[1].by_votes[3].error_rate > document.members[0].by_votes[3].error_rate


def test_a_clear_difference_is_named_and_none_is_not(storage):
    """The text names the better model where the test rejects, and else says that nothing was shown."""
    make(storage, "good", noise=0.05)
    make(storage, "bad", noise=1.5)
    make(storage, "alike", noise=0.05)
    document = compare.build(storage, ["good", "bad"])
    text = compare_text.to_text(document)
    assert "good has the higher AUROC" in text
    rates = document.members[1].by_votes
    shown = [f"{rate:.3f}" for rate in (*(one.error_rate for one in rates), by_votes.overall(rates).error_rate)]
    assert ["bad", *shown] in [line.split() for line in text.splitlines()], "one line of error rates for each model"
    assert "Descriptive only" in text
    text = compare_text.to_text(compare.build(storage, ["good", "alike"]))
    assert "no difference shown, which is no proof of equality" in text


def test_three_studies_are_three_pairs_with_holm(storage):
    """Holm's p-values of three pairs are those of `paired.holm`."""
    for name, noise in (("a", 0.3), ("b", 0.5), ("c", 0.8)):
        make(storage, name, noise=noise)
    primary = compare.build(storage, ["a", "b", "c"]).primary
    assert [(one.first, one.second) for one in primary] == [("a", "b"), ("a", "c"), ("b", "c")]
    p_values = [one.p_value for one in primary]
    assert [one.p_holm for one in primary] == pytest.approx(multipletests(p_values, method="holm")[1])
    for one in primary:
        assert (one.ci_holm[0] <= 0 <= one.ci_holm[1]) == (one.p_holm >= 0.05)
    text = compare_text.to_text(compare.build(storage, ["a", "b", "c"]))
    assert f"by Holm {primary[0].difference:+.4f} ({primary[0].ci_holm[0]:+.4f}" in text


def test_descriptive_tests_pair_the_seeds_that_both_have(storage):
    """Ten against three seeds: DeLong for three, no Wilcoxon, and McNemar on the seeds' mean probabilities."""
    first, second = make(storage, "a", n_seeds=10), make(storage, "b", n_seeds=3, noise=0.6)
    (pair,) = compare.build(storage, ["a", "b"]).descriptive
    assert [one.seed for one in pair.delong] == [0, 1, 2]
    assert pair.delong[1].p_value == descriptive.delong(LABELS, first[1], second[1]).p_value
    assert pair.wilcoxon_p is None
    right = [(np.mean(list(one.values()), axis=0) > 0.5) == LABELS for one in (first, second)]
    assert pair.mcnemar.only_first_right == (right[0] & ~right[1]).sum()


def test_wilcoxon_appears_from_six_seeds_on(storage):
    """Below six shared seeds its p-value cannot fall under 0.05."""
    make(storage, "a")
    make(storage, "b", noise=0.6)
    assert compare.build(storage, ["a", "b"]).descriptive[0].wilcoxon_p is not None


def test_a_single_seed_and_several_openings_are_pointed_out(storage):
    """What the test leaves out, and who looked twice, is said in the text."""
    make(storage, "a", n_seeds=1)
    make(storage, "b", n_seeds=2)
    open_test(storage, studies.load_study(storage, "b"), trial=9, seeds=(0,), reason="again")
    text = compare_text.to_text(compare.build(storage, ["a", "b"]))
    assert "One seed only: a" in text
    assert "b opened the test partition 2 times" in text
    assert "These test images were opened 3 times in this storage" in text


def test_groups_are_counted_and_enter_every_test(storage):
    """With groups no test counts images as independent: jackknife, clustered DeLong and McNemar, and no Wilcoxon."""
    groups = [f"slide{index // 2}" for index in range(40)]
    first = make(storage, "a", groups=groups)
    second = make(storage, "b", groups=groups, noise=0.6)
    document = compare.build(storage, ["a", "b"])
    assert document.resampled_by == "group"
    (expected,) = paired.auroc_differences(
        LABELS, [np.stack(list(one.values())) for one in (first, second)], groups=groups
    )
    assert (document.primary[0].se, document.primary[0].ci95) == (expected.se, expected.ci95)
    (pair,) = document.descriptive
    assert pair.delong[0].p_value == descriptive.delong(LABELS, first[0], second[0], groups=groups).p_value
    assert pair.wilcoxon_p is None
    text = compare_text.to_text(document)
    assert "jackknife over 20 groups (patients or slides), 10 with SSA and 10 with HP" in text
    assert "Wilcoxon's is not given" in text


def test_few_groups_are_not_tested_and_the_comparison_says_so(storage, tmp_path):
    """Four groups give no interval and no p-value, in text, in the figures and in the files."""
    groups = [f"slide{index % 4}" for index in range(40)]
    make(storage, "a", groups=groups)
    make(storage, "b", groups=groups, noise=0.6)
    document = compare.write(storage, ["a", "b"], tmp_path / "few")
    assert (document.primary[0].ci95, document.primary[0].p_holm) == (None, None)
    assert "not tested, because fewer than 5 groups hold a class" in compare_text.to_text(document)


def test_the_page_needs_nothing_beside_it(storage, tmp_path):
    """HTML with figures, the answer first and a contact sheet of who has thumbnails; Markdown and JSON beside it."""
    make(storage, "good", noise=0.05)
    make(storage, "bad", noise=1.5)
    bad = studies.load_study(storage, "bad")
    names = [f"{index:02}.png" for index in range(len(LABELS))]
    thumbnails.write(thumbnails.path_of(storage, bad), names, np.zeros((len(names), 3, 8, 8), dtype=np.uint8))
    document = compare.write(storage, ["good", "bad"], tmp_path / "page")
    html, markdown = (tmp_path / "page" / f"compare.{kind}" for kind in ("html", "md"))
    page = html.read_text()

    assert json.loads((tmp_path / "page" / "compare.json").read_text()) == json.loads(to_json(document))
    assert not re.search(r"(src|href)=\"(?!data:|#)|url\((?!#)|<script|@import", page)
    assert [
        figure in page
        for figure in (
            'id="roc-on-the-test-partition"',
            'id="auroc-of-every-seed"',
            'id="differences-of-auroc"',
            'id="error-rate-by-agreement-of-the-annotators"',
        )
    ] == [True] * 4
    assert page.index("good has the higher AUROC") < page.index("<table")
    shown = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]+)">', page)
    assert shown == [one.image_name for one in document.members[1].mistakes][:16]
    assert "Misclassified by good" not in page
    for text in (page, markdown.read_text()):
        assert f"{document.primary[0].difference:+.4f}" in text
        assert "count as independent" in text


def test_a_page_that_cannot_be_written_is_a_usage_error(storage, tmp_path):
    """A file where the folder should be is named with a hint."""
    make(storage, "a")
    make(storage, "b")
    (tmp_path / "page").write_text("")
    with pytest.raises(UsageError, match="cannot write the comparison"):
        compare.write(storage, ["a", "b"], tmp_path / "page")


def test_other_test_partitions_are_refused(storage):
    """Other image bytes, or other images, make the numbers incomparable."""
    make(storage, "a")
    make(storage, "other-bytes", fingerprint="d" * 64)
    make(storage, "other-rows", votes=[0, 7] * 20)
    for other in ("other-bytes", "other-rows"):
        with pytest.raises(UsageError, match="different test partitions"):
            compare.build(storage, ["a", other])


def test_what_cannot_be_compared_is_a_usage_error(storage):
    """One name, one name twice, an unknown study, one without results, and one class only."""
    make(storage, "a", votes=[0, 1] * 20)
    make(storage, "b", votes=[0, 1] * 20)
    create(storage, "empty")
    for names, problem in ((["a"], "two or more"), (["a", "a"], "two or more"), (["a", "empty"], "no retraining")):
        with pytest.raises(UsageError, match=problem):
            compare.build(storage, names)
    with pytest.raises(UsageError, match="each class"):
        compare.build(storage, ["a", "b"])
    with pytest.raises(StudyNotFoundError):
        compare.build(storage, ["a", "nothing"])


def test_before_retraining_the_hint_says_what_mhist_can_show(storage):
    """A study on MHIST's 2,175 train images that has no retraining is refused with the power of the comparison."""
    make(storage, "a")
    rows = [[f"{n}.png", n % 2, 7 * (n % 2), None] for n in range(2175)]
    for name in ("b", "c"):
        studies.create_study(
            storage,
            parse(DEFINITION.format(name=name), name),
            dataset={"fingerprint": "f" * 64},
            image_sets={"train": rows[:1740], "val": rows[1740:]},
        )
    with pytest.raises(UsageError, match="no retraining of b has finished") as refused:
        compare.build(storage, ["b", "c"])
    assert "AUROC .94 against .93 with a probability of 42%" in refused.value.hint
    create(storage, "small")
    with pytest.raises(UsageError) as refused:
        compare.build(storage, ["small", "a"])
    assert "probability" not in refused.value.hint
