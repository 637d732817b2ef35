"""Tests of mhist_tune.definition.changes."""

from pathlib import Path

import pytest

from mhist_tune.definition import study_file as definitions
from mhist_tune.errors import DefinitionError


def test_overrides_hold_a_field() -> None:
    """`--set` moves a field out of the space and the start entries; values are TOML, a bare word is a string."""
    held = {"drop_rate": "0.3", "sampling": "none", "exclude_votes": "[3]", "dropout_placement": "head+last1.mlp"}
    study = definitions.load("vit", n_trials=5, overrides=held)

    assert study.n_trials == 5
    assert {name: study.fixed[name] for name in held} == {
        "drop_rate": 0.3,
        "sampling": "none",
        "exclude_votes": [3],
        "dropout_placement": "head+last1.mlp",
    }
    assert not set(held) & set(study.space)
    assert not set(held) & set(study.default_params())
    assert study.text == definitions.load("vit").text
    assert study.sha256 != definitions.load("vit").sha256


def test_bad_overrides_are_refused_like_the_file() -> None:
    """A wrong name or value on the command line is a problem of the definition, several at once."""
    with pytest.raises(DefinitionError) as error:
        definitions.load("vit", n_trials=0, overrides={"drop_rat": "0.3", "epochs": "many"})

    assert any("did you mean drop_rate?" in problem for problem in error.value.problems)
    assert any("[fixed] epochs: must be a whole number, got 'many'" in problem for problem in error.value.problems)
    assert any("n_trials must be at least 1, got 0" in problem for problem in error.value.problems)


def test_an_override_holds_one_value_only() -> None:
    """A value that would be more than one line of TOML is taken as the word it is."""
    with pytest.raises(DefinitionError, match="epochs: must be a whole number"):
        definitions.load("vit", overrides={"epochs": "3\nother = 4"})


def test_weight_files_of_a_definition_lie_beside_it(tmp_path: Path) -> None:
    """Everywhere in the file, so that it can be read from any working directory; absolute paths and words stay."""
    path = tmp_path / "own.toml"
    path.write_text(
        """
        [study]
        name = "own"
        n_trials = 2
        [fixed]
        model = "test_resnet"
        model_options = { checkpoint_path = "c.safetensors" }
        [[row]]
        label = "a"
        weights = "a.safetensors"
        [[row]]
        label = "b"
        weights = "/b.safetensors"
        [[row]]
        label = "c"
        weights = "random"
        """
    )
    definition = definitions.load(path)
    beside = str(tmp_path / "a.safetensors")
    assert [row.params["weights"] for row in definition.rows] == [beside, "/b.safetensors", "random"]
    assert definition.fixed["model_options"] == {"checkpoint_path": str(tmp_path / "c.safetensors")}


def test_weights_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--weights FILE` is kept as an absolute path; the two tags stay as they are."""
    monkeypatch.chdir(tmp_path)

    assert definitions.load("vit", weights="w.safetensors").fixed["weights"] == str(tmp_path / "w.safetensors")
    assert definitions.load("vit", weights="random").fixed["weights"] == "random"
