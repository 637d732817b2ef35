"""The version of the package is one, and the changelog knows it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import mhist_tune

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    """The package says what pyproject.toml says, and so does what is installed, where it is this one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert mhist_tune.__version__ == project["version"] == version("mhist-tune")


def test_the_changelog_has_the_version_or_leads_to_it() -> None:
    """A released version has a heading with its date. One that is not yet released is above all that are."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\](.*)$", changelog, flags=re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    released = [name for name, _ in headings[1:]]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", name) for name in released)
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", rest) for _, rest in headings[1:])

    def order(name: str) -> tuple[int, ...]:
        return tuple(map(int, name.split(".")))

    assert released == sorted(released, key=order, reverse=True)
    assert mhist_tune.__version__ in released or all(order(mhist_tune.__version__) > order(name) for name in released)
