"""Facts that only the author has: of a study in `[about]` of its definition, of a data set in `dataset.toml`.

They change no result, so they are no part of the hash of a definition. Reports show them, and say which are missing.
"""

from collections.abc import Mapping
from typing import Any

from mhist_tune.definition.value_checks import is_number, quoted
from mhist_tune.errors import did_you_mean

STUDY_FACTS: Mapping[str, str] = {
    "objectives": "what the study asks, and its hypotheses",
    "population": "the population that the claims are about, and why this one",
    "intended_use": "what the model is for, and its place in the care of patients",
    "intended_users": "who uses the model, and what they must know",
    "sample_size": "why the number of images suffices",
    "fairness": "known inequalities between groups of patients, and what was done about them",
    "ethics": "the committee, its approval and the consent, or why none is needed",
    "funding": "who paid for the study, and the role of the funders",
    "conflicts": "conflicts of interest of the authors, commercial ones too",
    "registration": "the register and the number of the study, or that it was not registered",
    "protocol": "where the protocol can be read, or that there is none",
    "involvement": "how patients and the public took part, or that they did not",
    "code": "where the code of the analysis can be had",
    "model": "where the trained model can be had, and on which terms",
    "currency": "the currency of the price",
}
"""By name: what the text of a fact of the study says."""

RATES: Mapping[str, str] = {
    "price_per_hour": "the price of one hour of a worker on its device",
    "grid_kg_per_kwh": "the carbon intensity of the electricity, in kg of CO2 equivalents per kWh",
}
"""By name: what a number of the study, 0 or more, says."""

DATA_FACTS: Mapping[str, str] = {
    "description": "what the images show",
    "source": "where the data set comes from, as a citation or an address",
    "collection": "how and why the images were collected: in routine, for a study, or from a repository",
    "sites": "the number and the places of the centres",
    "dates": "when the images were collected",
    "eligibility": "which patients and images were included and left out, and whether they form a series",
    "patients": "demographic and clinical characteristics of the patients, by partition",
    "scanners": "manufacturer, model and magnification of the scanners, and the stain",
    "preparation": "how the images were made from the slides",
    "deidentification": "how patients were made unrecognizable",
    "annotators": "the qualifications of those who voted, and what they knew when they did",
    "reference_standard": "why the majority of votes is the reference standard",
    "partition": "how images came to the train and to the test partition",
    "missing": "which data are missing, and how that was handled",
    "availability": "where the data can be had, and on which terms",
}
"""By name: what the text of a fact of the data set says."""

LONGEST = 2000
"""The largest number of characters of a fact."""
_MOST = 1e6


def problems(table: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an `[about]` table, one text each."""
    known = (*STUDY_FACTS, *RATES)
    found = [f'[about] unknown key "{key}"{_place(key, known)}' for key in table if key not in known]
    found += [
        f"[about] {key} must be one line of text of at most {LONGEST:,} characters"
        for key in STUDY_FACTS
        if key in table and not is_line(table[key])
    ]
    return found + [
        f"[about] {key} must be a number from 0 to {_MOST:,.0f}, got {quoted(table[key])}"
        for key in RATES
        if key in table and not (is_number(table[key]) and 0 <= table[key] <= _MOST)
    ]


def is_line(value: object) -> bool:
    """Return whether a value is one line of printable text of at most `LONGEST` characters. It may be empty."""
    return isinstance(value, str) and len(value) <= LONGEST and value.isprintable()


def _place(key: str, known: tuple[str, ...]) -> str:
    return ": it belongs into dataset.toml" if key in DATA_FACTS else did_you_mean(key, known)
