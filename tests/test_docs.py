"""The documents name what is there, and nothing that is not."""

import re
import runpy
from pathlib import Path

from mhist_tune import definition
from mhist_tune.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "storage").glob("*.md")]


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
    """`docs/guide/cli.md` is what `python tools/cli_reference.py` writes now: run it after a change of a command."""
    made = runpy.run_path(str(ROOT / "tools" / "cli_reference.py"))["to_markdown"]()

    assert (ROOT / "docs" / "guide" / "cli.md").read_text() == made


def test_every_relative_link_leads_somewhere() -> None:
    """Each document that is linked in another, each image and each heading after a `#` exists."""
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            if "://" not in link and not (target.exists() and (not anchor or anchor in _anchors(target))):
                broken.append(f"{page.relative_to(ROOT)}: {link}")

    assert broken == []


def test_every_script_that_is_named_exists() -> None:
    """Documents say `python -m bench.…` and `python tools/…` of files that exist."""
    for page in [ROOT / "Makefile", *PAGES]:
        for module in re.findall(r"python -m (bench\.[\w.]*\w)", page.read_text()):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{page.name}: {module}"
        for script in re.findall(r"python ((?:tools|bench)/\S+\.py)", page.read_text()):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
