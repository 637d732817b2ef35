"""The documents name what is there, and nothing that is not."""

import re
import runpy
from pathlib import Path

from mhist_tune import definition
from mhist_tune.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def test_architecture_names_every_module() -> None:
    """A new module takes its place on the map, and one that is gone leaves it."""
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("| module | purpose |")[2].partition("\n\n")[0]
    named = {
        name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition("|")[2].partition("|")[0])
    }
    modules = {
        path.stem for path in (ROOT / "mhist_tune").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert named == modules - {"__init__", "__main__"}


def test_the_readme_shows_every_study_and_only_real_commands() -> None:
    """Each packaged definition has its line, and each command in a code block exists."""
    readme = (ROOT / "README.md").read_text()

    assert all(f"`{name}`" in readme or f"{name}.toml" in readme for name in definition.packaged())
    assert set(re.findall(r"(?:^|`)mhist-tune ([a-z-]+)", readme, flags=re.MULTILINE)) <= set(COMMANDS)


def test_the_command_reference_is_the_code_s() -> None:
    """`docs/cli.md` is what `python docs/cli.py` writes now: run it after a change of a command."""
    made = runpy.run_path(str(ROOT / "docs" / "cli.py"))["to_markdown"]()

    assert (ROOT / "docs" / "cli.md").read_text() == made
