"""Tables: `[[row]]` entries are read, completed, refused with every problem, and become one slot per row and seed."""

from pathlib import Path

import pytest

from mhist_tune.definition import study_file as definitions
from mhist_tune.definition.hyperparameters import FIELDS
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import DefinitionError

TABLE = """
[study]
name = "table"
n_seeds = 2

[fixed]
model = "test_resnet"
weights = "random"
augmentation = "none"
exclude_votes = [4]

[[row]]
label = "plain"
reported = { best_epoch = 5, val_f1 = 0.593, test_auroc = 0.798 }

[[row]]
augmentation = "flip"
learning_rate = 1

[[row]]
label = "clean, other model"
model = "test_vit"
exclude_votes = [3, 4]
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as error:
        definitions.parse(text, "x.toml")
    return error.value.problems


def test_rows_are_completed_from_fixed_and_defaults() -> None:
    """All rows name the same fields; with the fixed ones these are every hyperparameter, each once."""
    table = definitions.parse(TABLE, "x.toml")

    assert [row.label for row in table.rows] == ["plain", "augmentation flip, learning_rate 1", "clean, other model"]
    assert [dict(row.params) for row in table.rows] == [
        {"model": "test_resnet", "learning_rate": 1e-3, "augmentation": "none", "exclude_votes": [4]},
        {"model": "test_resnet", "learning_rate": 1.0, "augmentation": "flip", "exclude_votes": [4]},
        {"model": "test_vit", "learning_rate": 1e-3, "augmentation": "none", "exclude_votes": [3, 4]},
    ]
    assert {*table.fixed, *table.rows[0].params} == set(FIELDS)
    assert not {*table.fixed} & {*table.rows[0].params}
    assert table.rows[0].reported == {"best_epoch": 5, "val_f1": 0.593, "test_auroc": 0.798}
    assert table.default_params() == table.rows[0].params
    assert table.hyperparameters(table.rows[2].params).exclude_votes == (3, 4)


def test_each_row_and_seed_is_a_slot() -> None:
    """A slot for each, all rows of a seed before the next seed; n_trials ends the list earlier."""
    table = definitions.parse(TABLE, "x.toml")
    cut = definitions.parse(TABLE.replace("n_seeds = 2", "n_seeds = 2\nn_trials = 4"), "x.toml")

    assert (table.n_trials, table.n_seeds, table.pruner) == (6, 2, {"name": "none"})
    slots = table.slot_payloads()
    assert [(slot["label"], slot["seed"]) for slot in slots] == [(row.label, i) for i in (0, 1) for row in table.rows]
    assert all(slot["params"] == row.params for slot, row in zip(slots, [*table.rows] * 2, strict=True))
    assert cut.slot_payloads() == slots[:4]


def test_a_table_survives_storage_and_display() -> None:
    """Its record and what create-study shows mean the same table, hash and all."""
    table = definitions.parse(TABLE, "x.toml")

    assert StudyDefinition.from_json(table.to_json()) == table
    assert definitions.parse(definitions.render(table), "shown").sha256 == table.sha256


def test_a_row_and_its_reported_numbers_are_part_of_the_hash() -> None:
    """Another value in a row, or another reported number, is another study."""
    sha256 = definitions.parse(TABLE, "x.toml").sha256

    for old, new in [('"flip"', '"rotate"'), ("0.593", "0.594"), ("n_seeds = 2", "n_seeds = 3")]:
        assert definitions.parse(TABLE.replace(old, new), "x.toml").sha256 != sha256


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("n_seeds = 2", "n_seeds = 0", "[study] n_seeds must be at least 1, got 0"),
        ("n_seeds = 2", "n_trials = 10", "[study] n_trials 10 is above 3 rows x 3 seeds"),
        ("n_seeds = 2", 'sampler = { name = "tpe" }', "[study] sampler is for a search"),
        ("n_seeds = 2", 'pruner = { name = "none" }', "[study] pruner is for a search"),
        ("n_seeds = 2", "n_seed = 2", '[study] unknown key "n_seed" (did you mean n_seeds?)'),
        ("[fixed]", "[space]\ndrop_rate = { low = 0.1, high = 0.2 }\n[fixed]", "[[row]] entries replace a search"),
        ("[fixed]", "[[start]]\n[fixed]", "[[row]] entries replace a search"),
        ("learning_rate = 1", "learning_rat = 1", '[[row]] 2: unknown hyperparameter "learning_rat"'),
        ("learning_rate = 1", "learning_rate = 99", "[[row]] 2: learning_rate: must be at most 10.0, got 99"),
        ("learning_rate = 1", "image_size = 32", "[[row]] 2: image_size: has one value for the whole study"),
        ("learning_rate = 1", 'label = "plain"', '[[row]] 2: an earlier row is "plain" too'),
        ('label = "plain"', "label = 3", "[[row]] 1: label must be text, got 3"),
        ('label = "plain"', f"label = 0x{'f' * 5000}", "[[row]] 1: label must be text, got a value that is too large"),
        (
            "learning_rate = 1",
            f"learning_rate = 0x{'f' * 5000}",
            "[[row]] 2: learning_rate: must be a number of at most",
        ),
        ('label = "plain"\n', "", "[[row]] 1: label must be text, got ''"),
        ("val_f1 = 0.593", "vl_f1 = 0.593", "[[row]] 1: reported vl_f1: a name is best_epoch, or starts with"),
        ("val_f1 = 0.593", 'val_f1 = "high"', "[[row]] 1: reported val_f1: must be a number, got 'high'"),
        ("reported = {", "reported = [{", "[[row]] 1: reported must be a table"),
        ("[[row]]\nlabel", "[row]\nlabel", "row must be written as tables, each under [[row]]"),
    ],
)
def test_each_mistake_is_named(old: str, new: str, expected: str) -> None:
    """A mistake in a table gives one problem that says in which row it is and what would be right."""
    text = TABLE.replace(old, new)
    assert text != TABLE, "the edit must apply"
    if new.startswith("reported = [{"):
        text = text.replace("0.798 }", "0.798 }]")
    if new.startswith("[row]"):
        text = text[: text.index("[[row]]")]

    assert any(problem.startswith(expected) for problem in problems_of(text)), problems_of(text)


def test_seeds_need_rows() -> None:
    """A search has one training per trial, so n_seeds is refused there."""
    text = TABLE[: TABLE.index("[[row]]")]

    assert '[study] unknown key "n_seeds"' in problems_of(text)[0]


def test_overrides_leave_no_row_behind(tmp_path: Path) -> None:
    """`--set` takes a field out of every row; labels and reported numbers stay."""
    path = tmp_path / "table.toml"
    path.write_text(TABLE.replace("learning_rate = 1", 'label = "flip"'))

    table = definitions.load(path, overrides={"augmentation": "rotate", "model": "fcnn"}, n_trials=2)

    assert (table.fixed["augmentation"], table.fixed["model"], table.n_trials) == ("rotate", "fcnn", 2)
    assert [set(row.params) for row in table.rows] == [{"exclude_votes"}] * 3
    assert table.rows[0].reported["val_f1"] == 0.593


def test_a_weight_file_replaces_pretrained_only(tmp_path: Path) -> None:
    """`--weights FILE` goes where rows say pretrained or nothing; rows that start from random weights keep doing so."""
    path = tmp_path / "table.toml"
    path.write_text(
        TABLE.replace('label = "plain"', 'label = "plain"\nweights = "pretrained"').replace('weights = "random"\n', "")
    )
    path.write_text(path.read_text().replace('model = "test_vit"', 'model = "test_vit"\nweights = "random"'))

    table = definitions.load(path, weights=tmp_path / "w.safetensors")

    file = str(tmp_path / "w.safetensors")
    assert [row.params["weights"] for row in table.rows] == [file, file, "random"]
