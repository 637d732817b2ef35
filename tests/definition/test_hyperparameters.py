"""Tests of mhist_tune.definition.hyperparameters."""

import dataclasses
import doctest
import json

import pytest

from mhist_tune.definition import hyperparameters
from mhist_tune.definition.hyperparameters import FIELDS, Hyperparameters, check


def test_every_field_is_described_and_its_default_is_legal() -> None:
    """Each field has a sentence, and each default passes its own check."""
    assert list(FIELDS) == [field.name for field in dataclasses.fields(Hyperparameters)]
    for name, field in FIELDS.items():
        assert field.doc.endswith(".")
        assert check(name, field.default) is None


def test_choices_and_types_come_from_the_annotations() -> None:
    """A Literal becomes choices of a str field, the other annotations become their plain types."""
    assert FIELDS["optimizer"].choices == ("adam", "adamw", "sgd")
    assert FIELDS["optimizer"].type is str
    assert FIELDS["epochs"].type is int
    assert FIELDS["learning_rate"].type is float
    assert FIELDS["exclude_votes"].type is tuple
    assert FIELDS["model_options"].type is dict


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("epochs", 0, "must be at least 1, got 0"),
        ("epochs", 3.0, "must be a whole number, got 3.0"),
        ("epochs", True, "must be a whole number, got True"),
        ("learning_rate", "fast", "must be a number, got 'fast'"),
        ("learning_rate", float("nan"), "must be a number, got nan"),
        ("learning_rate", 0.0, "must be at least 1e-10, got 0.0"),
        ("drop_rate", 1.5, "must be at most 0.99, got 1.5"),
        ("monitor", "accuracy", 'must be one of score, mean_f1, f1, auroc, loss, got "accuracy"'),
        ("layer_decay", 1.5, "must be at most 1.0, got 1.5"),
        ("exclude_votes", [3, 8], "must be at most 7, got 8"),
        ("exclude_votes", 3, "must be a list of whole numbers, got 3"),
        ("model", "", "must be text, got ''"),
        ("model_options", [1], "must be a table, got [1]"),
    ],
)
def test_an_illegal_value_is_named(name: str, value: object, problem: str) -> None:
    """The problem names the expected and the given value."""
    assert check(name, value) == problem


@pytest.mark.parametrize("placement", ["last1", "head+last0", "head+last1.attn", "Head", "head+last1 "])
def test_a_placement_must_have_the_documented_form(placement: str) -> None:
    """Only none, head, head+lastK.mlp, head+lastK and pos are placements."""
    assert "head+lastK" in str(check("dropout_placement", placement))


@pytest.mark.parametrize("placement", ["none", "head", "head+last1.mlp", "head+last12", "pos"])
def test_documented_placements_pass(placement: str) -> None:
    """Any K from 1 is a placement; whether a model has so many blocks is the model's question."""
    assert check("dropout_placement", placement) is None


@pytest.mark.parametrize("freeze", ["none", "all_but_head", "stem", "first1", "first12"])
def test_documented_freezes_pass(freeze: str) -> None:
    """Any N from 1 is legal; whether a model has so many blocks is the model's question."""
    assert check("freeze", freeze) is None


@pytest.mark.parametrize("freeze", ["first", "first0", "last2", "head", "stem "])
def test_a_freeze_must_have_the_documented_form(freeze: str) -> None:
    """Only none, all_but_head, stem and firstN say what is frozen."""
    assert "firstN" in str(check("freeze", freeze))


def test_weights_are_a_word_or_a_safetensors_file() -> None:
    """Pickled weights and misspelt words are refused."""
    assert check("weights", "folder/file.safetensors") is None
    assert check("weights", "random") is None
    assert "safetensors" in str(check("weights", "file.pth"))


def test_options_must_survive_json() -> None:
    """What cannot be stored as JSON cannot be an option."""
    assert check("model_options", {"drop_path_rate": 0.1, "act_layer": "gelu", "sizes": [1, 2]}) is None
    assert "plain values" in str(check("model_options", {"layer": object()}))


def test_an_unknown_name_gets_a_suggestion() -> None:
    """A misspelt hyperparameter is named together with the nearest one."""
    assert check("drop_rat", 0.5) == 'unknown hyperparameter "drop_rat" (did you mean drop_rate?)'


def test_all_problems_come_at_once() -> None:
    """The constructor lists every illegal value."""
    with pytest.raises(ValueError, match="epochs: must be at least 1, got 0\nsampling: must be one of"):
        Hyperparameters(epochs=0, sampling="smot")  # type: ignore[arg-type]


def test_json_round_trip() -> None:
    """to_dict is plain JSON and from_dict gives an equal object, with defaults for what is left out."""
    hp = Hyperparameters(exclude_votes=(3, 4), model_options={"drop_path_rate": 0.1}, learning_rate=1)

    assert Hyperparameters.from_dict(json.loads(json.dumps(hp.to_dict()))) == hp
    assert isinstance(hp.learning_rate, float)
    assert Hyperparameters.from_dict({}) == Hyperparameters()
    hash(hp)


def test_from_dict_refuses_unknown_names() -> None:
    """An unknown key is an error, not ignored."""
    with pytest.raises(ValueError, match="did you mean epochs"):
        Hyperparameters.from_dict({"epoch": 3})


def test_docstring_examples() -> None:
    """The examples in the docstrings are true."""
    result = doctest.testmod(hyperparameters)

    assert result.attempted > 0
    assert result.failed == 0
