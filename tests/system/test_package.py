"""The wheel holds what the package needs, and importing a package loads no more than it promises."""

import importlib.util
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mhist_tune

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mhist_tune"


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    """Templates, scripts of pages, revisions of the tables and studies are installed with the modules."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("mhist_tune/")}

    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    studies = {f"mhist_tune/studies/{path.name}" for path in (ROOT / "studies").glob("*.toml")}
    assert studies
    assert names == {path.relative_to(ROOT).as_posix() for path in files} | studies


def modules_of(package: str) -> list[str]:
    """Return the names of a package's modules, without Alembic's scripts, which Alembic alone can load."""
    spec = importlib.util.find_spec(f"mhist_tune.{package}")
    assert spec is not None
    assert spec.submodule_search_locations
    found = pkgutil.walk_packages(spec.submodule_search_locations, f"mhist_tune.{package}.")
    return [module.name for module in found if ".migrations" not in module.name]


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("definition", {"torch", "timm", "numpy", "optuna", "sqlalchemy", "click", "rich"}),
        ("statistics", {"torch", "timm", "optuna", "sqlalchemy"}),
        ("plots", {"torch", "timm", "optuna", "sqlalchemy"}),
        ("storage", {"torch", "timm"}),
        ("search", {"torch", "timm"}),
        ("report", {"torch", "timm"}),
        ("training", {"optuna", "sqlalchemy"}),
        ("data", {"optuna", "sqlalchemy"}),
    ],
)
def test_a_package_loads_what_it_promises(package: str, absent: set[str]) -> None:
    """All of its modules are imported into a fresh process, which then has none of the libraries it does without."""
    modules = modules_of(package)
    assert len(modules) > 3
    code = f"import sys, {', '.join(modules)}\nprint(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_every_module_can_be_imported() -> None:
    """No module needs another to be imported first, nor has a mistake at its top level."""
    packages = [path.parent.name for path in sorted(Path(mhist_tune.__path__[0]).glob("*/__init__.py"))]
    assert len(packages) == 12
    modules = [name for package in packages for name in modules_of(package)]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"

    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], check=True)
