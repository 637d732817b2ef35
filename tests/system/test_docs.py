"""The documents name what exists, and nothing else."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from mhist_tune.cli import COMMANDS
from mhist_tune.definition import files

ROOT = Path(__file__).parents[2]  # tests/system/test_docs.py
PACKAGE = ROOT / "mhist_tune"
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "storage").glob("*.md")]


def test_architecture_names_every_package_and_the_contract_s_order() -> None:
    """The table has a line for each package, the text names each root module, and the graph is that of the contract."""
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    table = architecture.partition("| package | purpose |")[2].partition("\n\n")[0]
    root = architecture.partition("At the root: ")[2].partition("\n\n")[0]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    of_packages = [layer for layer in layers if set(layer.split(" | ")) <= set(PACKAGES)]

    assert set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == set(PACKAGES)
    assert _modules(PACKAGE) - set(PACKAGES) - {"__main__"} == set(re.findall(r"`(\w+)`", root))
    assert " > ".join(of_packages) in architecture


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_s_docstring_names_its_modules(package: str) -> None:
    """Each module has a line of its own, "- `name`: purpose", and a line names a module that exists."""
    folder = PACKAGE / package
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""

    assert set(re.findall(r"^- `(\w+)`", docstring, flags=re.MULTILINE)) == _modules(folder)


def _modules(folder: Path) -> set[str]:
    modules = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return {path.stem for path in modules} - {"__init__"}


def test_the_readme_shows_every_study_and_only_real_commands() -> None:
    """Each packaged definition has its line, and each command in a code block exists."""
    readme = (ROOT / "README.md").read_text()

    assert all(f"`{name}`" in readme or f"{name}.toml" in readme for name in files.packaged())
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
