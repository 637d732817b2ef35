"""Facts that only the author has: which are known, what they may be, and that they identify no study."""

from pathlib import Path

import pytest

from mhist_tune.definition import about
from mhist_tune.definition import study_file as definitions
from mhist_tune.definition.about import DATA_FACTS, RATES, STUDY_FACTS
from mhist_tune.errors import DefinitionError

STUDY = '[study]\nname = "x"\nn_trials = 1\n'
ABOUT = '[about]\nfunding = "none"\nprice_per_hour = 2.5\ngrid_kg_per_kwh = 0\n'


def test_no_fact_has_the_name_of_another() -> None:
    """A fact is found by its name alone, whether it is of the study or of its data."""
    assert len({*STUDY_FACTS, *RATES, *DATA_FACTS}) == len(STUDY_FACTS) + len(RATES) + len(DATA_FACTS)


def test_facts_are_stored_and_written_but_identify_no_study() -> None:
    """A definition keeps its facts through JSON and TOML, and has the hash that it has without them."""
    study = definitions.parse(STUDY + ABOUT, "x.toml")

    assert study.about == {"funding": "none", "price_per_hour": 2.5, "grid_kg_per_kwh": 0}
    assert definitions.StudyDefinition.from_json(study.to_json()).about == study.about
    assert definitions.parse(definitions.render(study), "x.toml").about == study.about
    plain = definitions.parse(STUDY, "x.toml")
    assert study.sha256 == plain.sha256
    assert "about" not in plain.resolved()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('fundng = "x"', r'unknown key "fundng" \(did you mean funding\?\)'),
        ('sites = "x"', "sites.*belongs into dataset.toml"),
        ("funding = 3", "funding must be one line of text"),
        ('ethics = "a\\nb"', "ethics must be one line of text"),
        ("price_per_hour = -1", "price_per_hour must be a number from 0"),
        ("grid_kg_per_kwh = nan", "grid_kg_per_kwh must be a number from 0"),
        ("price_per_hour = true", "price_per_hour must be a number from 0"),
    ],
)
def test_a_wrong_fact_is_refused(line: str, problem: str) -> None:
    """A name that is not known and a value of a wrong kind are problems of the definition."""
    with pytest.raises(DefinitionError, match=problem):
        definitions.parse(f"{STUDY}[about]\n{line}\n", "x.toml")


def test_a_fact_has_an_end() -> None:
    """A text of more than `LONGEST` characters is refused."""
    assert about.problems({"funding": "x" * about.LONGEST}) == []
    assert len(about.problems({"funding": "x" * (about.LONGEST + 1)})) == 1


def test_the_guide_lists_every_fact() -> None:
    """The tables of `docs/guide/checklists.md` have each fact with what it says."""
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "checklists.md").read_text()
    for name, says in {**STUDY_FACTS, **RATES, **DATA_FACTS}.items():
        assert f"| `{name}` | {says}" in guide
