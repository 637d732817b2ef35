"""Study definitions: read, completed, refused with every problem at once, stored and read back."""

import json

import pytest

from mhist_tune.definition import study_file as definitions
from mhist_tune.definition.hyperparameters import FIELDS
from mhist_tune.definition.space import Categorical, Float
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import DefinitionError, UsageError
from mhist_tune.search import pruning

GOOD = """
[study]
name = "vit"
n_trials = 60
sampler = { name = "tpe", seed = 7 }
pruner = { name = "hyperband", min_resource = 3 }

[fixed]
model = "vit_base_patch16_224"
epochs = 30
exclude_votes = [3, 4]

[space]
learning_rate = { low = 1e-6, high = 1e-3, log = true }
dropout_placement = { choices = ["none", "head", "head+last1.mlp"] }
drop_rate = { low = 0.1, high = 0.6 }
weight_decay = { low = 0.03, high = 10.0, log = true }

[[start]]
learning_rate = 1e-5
dropout_placement = "head"
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as error:
        definitions.parse(text, "x.toml")
    return error.value.problems


def test_a_definition_is_complete() -> None:
    """Fixed and searched fields together name every hyperparameter; options of sampler and pruner are filled in."""
    study = definitions.parse(GOOD, "vit.toml")

    assert (study.name, study.n_trials, study.split_seed, study.val_fraction) == ("vit", 60, 0, 0.2)
    assert study.sampler == {"name": "tpe", "seed": 7, "n_startup_trials": 10, "n_ei_candidates": 24}
    assert study.pruner == {"name": "hyperband", "min_resource": 3, "reduction_factor": 3, "audit": 0.0}
    assert study.space["learning_rate"] == Float(1e-6, 1e-3, log=True)
    assert study.space["dropout_placement"] == Categorical(("none", "head", "head+last1.mlp"))
    assert {*study.fixed, *study.space} == set(FIELDS)
    assert not {*study.fixed} & {*study.space}
    assert study.fixed["exclude_votes"] == [3, 4]
    assert study.text == GOOD


def test_start_entries_are_completed_within_the_space() -> None:
    """Fields left out take their defaults, moved into the space where they lie outside; the first is the control."""
    study = definitions.parse(GOOD, "vit.toml")

    expected = {"learning_rate": 1e-5, "dropout_placement": "head", "drop_rate": 0.5, "weight_decay": 0.03}
    assert study.start == (expected,)
    assert study.default_params() == expected


def test_without_start_the_control_is_the_packages_default() -> None:
    """A study without start entries still has default params, all within its space."""
    study = definitions.parse(GOOD[: GOOD.index("[[start]]")], "vit.toml")

    assert study.start == ()
    assert all(study.space[name].contains(value) for name, value in study.default_params().items())
    assert study.default_params()["learning_rate"] == 1e-3


def test_hyperparameters_join_fixed_and_params() -> None:
    """What fit takes holds the fixed values and the trial's params."""
    hp = definitions.parse(GOOD, "vit.toml").hyperparameters({"learning_rate": 1e-4, "drop_rate": 0.2})

    assert (hp.model, hp.exclude_votes, hp.learning_rate, hp.drop_rate) == ("vit_base_patch16_224", (3, 4), 1e-4, 0.2)


def test_json_round_trip_keeps_everything() -> None:
    """The stored record gives the same definition back, its hash and verbatim text included."""
    study = definitions.parse(GOOD, "vit.toml")

    assert StudyDefinition.from_json(study.to_json()) == study


@pytest.mark.parametrize("name", ["demo", "efficientnet", "fcnn", "resnet18", "vit"])
def test_render_is_read_back(name: str) -> None:
    """What create-study shows is TOML that means the same study, hash and all."""
    study = definitions.load(name, overrides={"model_options": '{ "a.b" = [1, true], c = "\\"q\\"" }'})
    shown = definitions.render(study)

    assert definitions.parse(shown, "shown").resolved() == study.resolved()
    assert definitions.parse(shown, "shown").sha256 == study.sha256
    assert 'precision = "auto"' in shown


def test_the_hash_is_of_the_content() -> None:
    """Comments and number spelling do not change the hash; a value does, and so does a start entry."""
    sha256 = definitions.parse(GOOD, "vit.toml").sha256

    assert definitions.parse("# why\n" + GOOD.replace("high = 10.0", "high = 10"), "vit.toml").sha256 == sha256
    assert definitions.parse(GOOD.replace("epochs = 30", "epochs = 31"), "vit.toml").sha256 != sha256
    assert definitions.parse(GOOD.replace("learning_rate = 1e-5", "learning_rate = 2e-5"), "x").sha256 != sha256


def test_confirm_is_completed_stored_and_part_of_the_hash() -> None:
    """`[confirm]` takes its defaults, comes back from a record, and a study without it has the hash it always had."""
    without = definitions.parse(GOOD, "vit.toml")
    study = definitions.parse(GOOD + "[confirm]\ntop = 4\n", "vit.toml")

    assert without.confirm is None
    assert "confirm" not in without.resolved()
    assert study.confirm == {"top": 4, "n_folds": 5, "race_level": 0.0}
    assert not study.races
    assert definitions.parse(GOOD + "[confirm]\nrace_level = 0.1\n", "vit.toml").races
    assert StudyDefinition.from_json(study.to_json()) == study
    assert study.sha256 != without.sha256
    assert definitions.parse(definitions.render(study), "shown").sha256 == study.sha256


def test_a_record_of_another_version_is_refused_with_a_remedy() -> None:
    """A stored field that this version does not know is a usage error, not a traceback."""
    record = json.loads(definitions.parse(GOOD, "vit.toml").to_json())
    record["fixed"]["label_smoothing"] = 0.1

    with pytest.raises(UsageError, match=r'study "vit" .* another version .* "label_smoothing"') as error:
        StudyDefinition.from_json(json.dumps(record))
    assert error.value.hint


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[fixed]", "[fixd]", 'unknown table "fixd" (did you mean fixed?)'),
        ("n_trials = 60", "n_trails = 60", '[study] unknown key "n_trails" (did you mean n_trials?)'),
        ("n_trials = 60", "", "[study] n_trials is missing"),
        ("n_trials = 60", "n_trials = 0", "[study] n_trials must be at least 1, got 0"),
        ("n_trials = 60", "n_trials = 6.5", "[study] n_trials must be a whole number, got 6.5"),
        ("n_trials = 60", "n_trials = true", "[study] n_trials must be a whole number, got True"),
        ("n_trials = 60", "n_trials = 6\nval_fraction = nan", "[study] val_fraction must be at least 0.05, got nan"),
        ("n_trials = 60", "n_trials = 6\nval_fraction = 0.9", "[study] val_fraction must be at most 0.5, got 0.9"),
        ('"vit"', '"vit b"', "[study] name 'vit b' is not valid: use letters, digits, _ and -"),
        ('name = "vit"', "", "[study] name is missing: use letters, digits, _ and -"),
        ('"tpe"', '"tpee"', '[study] unknown sampler "tpee" (did you mean tpe?); known are tpe, random, qmc, gp'),
        ('"tpe"', '"cma-es"', "[study] cma-es is not supported: it draws every field with choices at random; use tpe"),
        ("seed = 7", "sead = 7", '[study] sampler tpe: unknown key "sead" (did you mean seed?)'),
        ('{ name = "tpe", seed = 7 }', '"tpe"', "[study] sampler must be a table such as"),
        ('"hyperband"', '"hyperbend"', '[study] unknown pruner "hyperbend" (did you mean hyperband?)'),
        ("min_resource = 3", "n_warmup_epochs = 3", '[study] pruner hyperband: unknown key "n_warmup_epochs"'),
        ("min_resource = 3", "min_resource = 0", "[study] pruner hyperband: min_resource must be at least 1, got 0"),
        ("epochs = 30", "epocs = 30", '[fixed] unknown hyperparameter "epocs" (did you mean epochs?)'),
        ("epochs = 30", "epochs = 0", "[fixed] epochs: must be at least 1, got 0"),
        ("epochs = 30", "drop_rate = 0.5", "drop_rate is in both [fixed] and [space]; keep one"),
        ("high = 1e-3", "high = 1e-7", "[space] learning_rate: low 1e-06 is above high 1e-07"),
        (
            "weight_decay =",
            "weight_decy =",
            '[space] unknown hyperparameter "weight_decy" (did you mean weight_decay?)',
        ),
        (
            "[[start]]",
            "image_size = { choices = [224, 384] }\n[[start]]",
            "[space] image_size: has one value for the whole study",
        ),
        (
            "[[start]]",
            'model = { choices = ["resnet18", "resnet34"] }\n[[start]]',
            "[space] model: cannot be searched; put it in [fixed], or in [[row]] entries",
        ),
        ("[[start]]", "[start]", "start must be written as tables, each under [[start]]"),
        ('"head"\n', '"pos"\n', "[[start]] 1: dropout_placement: 'pos' is outside its space, one of none, head,"),
        ("rate = 1e-5", "rate = 1e-2", "[[start]] 1: learning_rate: 0.01 is outside its space, 1e-06 to 0.001 (log)"),
        (
            "rate = 1e-5",
            "rate = 1e-5\nepochs = 5",
            "[[start]] 1: epochs: is not in [space]: every trial has the value of",
        ),
        (
            "rate = 1e-5",
            "rat = 1e-5",
            '[[start]] 1: unknown hyperparameter "learning_rat" (did you mean learning_rate?)',
        ),
        ("[study]", "[study", "not TOML: "),
        ("[[start]]", "[confirm]\ntop = 0\n[[start]]", "[confirm] top must be at least 1, got 0"),
        ("[[start]]", "[confirm]\nfolds = 5\n[[start]]", '[confirm] unknown key "folds" (did you mean n_folds?)'),
        (
            '[[start]]\nlearning_rate = 1e-5\ndropout_placement = "head"',
            "[confirm]",
            "[confirm] needs the study's default",
        ),
    ],
)
def test_each_mistake_is_named(old: str, new: str, expected: str) -> None:
    """A mistake anywhere in the file gives one problem that says where it is and what would be right."""
    assert GOOD.count(old), "the edit must apply"
    problems = problems_of(GOOD.replace(old, new))

    assert any(problem.startswith(expected) for problem in problems), problems


def test_all_problems_of_a_file_come_at_once() -> None:
    """Mistakes in three tables are reported together, under the name of the file."""
    text = GOOD.replace("n_trials = 60", "n_trials = 0").replace("epochs = 30", "epocs = 30")
    problems = problems_of(text.replace("high = 0.6", "high = 0.05"))

    assert len(problems) == 3
    with pytest.raises(DefinitionError, match=r"x\.toml has 3 problems:\n  \[study\] n_trials"):
        definitions.parse(text.replace("high = 0.6", "high = 0.05"), "x.toml")


def test_an_empty_file_is_refused_with_what_is_missing() -> None:
    """Name and budget are required; everything else has a default."""
    assert len(problems_of("")) == 2


def test_a_search_over_nothing_is_refused() -> None:
    """Several trials without a space would all be the same; a single one may be."""
    text = '[study]\nname = "one"\nn_trials = {}\n'

    assert problems_of(text.format(5)) == (
        "[space] is empty, so all trials would be the same: add fields to search, or [[row]] entries",
    )
    assert definitions.parse(text.format(1), "x.toml").default_params() == {}


@pytest.mark.parametrize("name", ["efficientnet", "resnet18", "demo"])
def test_the_micro_batch_of_models_with_batchnorm_is_in_the_file(name: str) -> None:
    """With BatchNorm the micro-batch is part of the method, so the definition states it and it divides every batch."""
    study = definitions.load(name)
    choices = study.space["effective_batch_size"]

    assert "\nmicro_batch_size = " in study.text
    assert isinstance(choices, Categorical)
    assert all(int(choice) % study.fixed["micro_batch_size"] == 0 for choice in choices.choices)


@pytest.mark.parametrize("name", ["efficientnet", "fcnn", "resnet18", "vit"])
def test_decay_is_never_lost_in_rounding(name: str) -> None:
    """At every corner of the space AdamW's factor 1 - lr * wd is below 1 in float32."""
    space = definitions.load(name).space
    learning_rate, weight_decay = space["learning_rate"], space["weight_decay"]

    assert isinstance(learning_rate, Float) and isinstance(weight_decay, Float)
    assert learning_rate.low * weight_decay.low > 2**-25


def test_a_score_and_its_epoch_left_out_are_those_of_older_studies() -> None:
    """Without them a definition, and a stored one of an older version, searches by F1 at the best epoch."""
    study = definitions.parse(GOOD, "vit.toml")
    stored = json.loads(study.to_json())
    del stored["study"]["score"], stored["study"]["at"]

    old = StudyDefinition.from_json(json.dumps(stored))

    assert (study.score, study.at, study.score_name) == (old.score, old.at, old.score_name) == ("f1", "best", "F1")


def test_a_definition_names_its_score_and_epoch() -> None:
    """Both are stored and read back; other values are refused with the known ones."""
    text = GOOD.replace("n_trials = 60", 'n_trials = 60\nscore = "mean_f1"\nat = "last"')
    study = StudyDefinition.from_json(definitions.parse(text, "vit.toml").to_json())

    assert (study.score, study.at, study.score_name) == ("mean_f1", "last", "mean F1")
    assert problems_of(text.replace("mean_f1", "accuracy").replace('"last"', "7")) == (
        '[study] score must be one of mean_f1, f1, auroc, got "accuracy"',
        "[study] at must be text, got 7",
    )


PROMOTED = GOOD.replace('{ name = "hyperband", min_resource = 3 }', '{ name = "promotion" }')


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ('{ name = "promotion" }', 30, [2, 6]),
        ('{ name = "promotion" }', 50, [3, 9]),
        ('{ name = "promotion" }', 6, [1]),
        ('{ name = "promotion" }', 2, [1]),
        ('{ name = "promotion", max_resource = 29 }', 30, [2, 6, 18]),
        ('{ name = "promotion", min_resource = 3 }', 30, [3, 9, 27]),
        ('{ name = "promotion", min_resource = 3, max_resource = 9 }', 30, [3, 9]),
    ],
)
def test_rungs_are_at_shares_of_the_epochs(pruner: str, epochs: int, expected: list[int]) -> None:
    """The first is at 6% and none above a third, unless the definition names the first, the highest, or both."""
    text = PROMOTED.replace('{ name = "promotion" }', pruner).replace("epochs = 30", f"epochs = {epochs}")
    study = StudyDefinition.from_json(definitions.parse(text, "vit.toml").to_json())

    assert pruning.rungs(study.pruner, epochs) == expected


def test_a_stored_definition_of_an_older_version_keeps_its_rungs() -> None:
    """It names no highest rung, and has rungs up to its last epoch."""
    stored = json.loads(definitions.parse(PROMOTED, "vit.toml").to_json())
    stored["study"]["pruner"] = {"name": "promotion", "min_resource": 3, "reduction_factor": 3, "audit": 0.0}

    old = StudyDefinition.from_json(json.dumps(stored))

    assert pruning.rungs(old.pruner, 30) == [3, 9, 27]


def test_searched_epochs_have_rungs_below_the_longest_trial() -> None:
    """The largest number of epochs in the space decides."""
    text = PROMOTED.replace("epochs = 30\n", "").replace("[space]", "[space]\nepochs = { choices = [10, 50] }")

    assert definitions.parse(text, "vit.toml").pruner["max_resource"] == 16


def test_a_sampler_that_learns_nothing_under_promotion_is_refused() -> None:
    """A new definition is refused with the reason. A stored one is still read, and other pruners are allowed."""
    text = PROMOTED.replace('"tpe"', '"gp"')
    stored = json.loads(definitions.parse(PROMOTED, "vit.toml").to_json())
    stored["study"]["sampler"] = {"name": "gp", "seed": 0, "n_startup_trials": 10}

    [problem] = problems_of(text)

    assert problem.startswith("[study] sampler gp learns from complete trials only")
    assert StudyDefinition.from_json(json.dumps(stored)).sampler["name"] == "gp"
    assert definitions.parse(text.replace('"promotion"', '"median"'), "vit.toml").sampler["name"] == "gp"
