"""The project as a whole: what importing it costs, what it declares, what is in the repository."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "dagster", "transformers", "deepspeed", "ray", "kubernetes", "lmms_eval", "matplotlib")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]


def third_party(path: Path) -> set[str]:
    """Top-level names of what a file imports, here or in a function, beyond the standard library and ourselves."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"ov_model", "ov_assets", "tests", "benchmarks"}


def requirements(pyproject: dict[str, Any]) -> list[Requirement]:
    """Everything the base and the extras ask for; flash-attn is built from source and has no tested pin."""
    project = pyproject["project"]
    extras = [text for name, extra in project["optional-dependencies"].items() if name != "flash" for text in extra]
    found = [Requirement(text) for text in project["dependencies"] + extras]
    return [requirement for requirement in found if requirement.name != project["name"]]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("ov_model", ("train", "eval", "s3")),
        ("ov_assets", ("dagster",)),
        ("tests", ("dagster", "dev", "train", "eval", "k8s")),
    ],
)
def test_what_is_imported_is_declared(pyproject: dict[str, Any], folder: str, extras: tuple[str, ...]) -> None:
    project = pyproject["project"]
    texts = project["dependencies"] + [t for extra in extras for t in project["optional-dependencies"][extra]]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    providers = metadata.packages_distributions()
    for path in (ROOT / folder).rglob("*.py"):
        for module in third_party(path):
            names = {canonicalize_name(name) for name in providers.get(module, [module])}
            assert names & declared, f"{path} imports {module}: declare {' or '.join(sorted(names))}"


@pytest.mark.parametrize("module", ["ov_model", "ov_model.cli", "ov_model.demo", "ov_model.lake.dataset"])
def test_library_imports_neither_orchestrator_nor_models(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_library_never_names_the_orchestrator() -> None:
    pattern = re.compile(r"^\s*(?:from|import)\s+(?:dagster|ov_assets)\b", re.MULTILINE)
    assert [str(p) for p in (ROOT / "ov_model").rglob("*.py") if pattern.search(p.read_text())] == []


def test_every_requirement_is_pinned_to_a_version_it_allows(pyproject: dict[str, Any], pins: list[Requirement]) -> None:
    for requirement in requirements(pyproject):
        versions = [
            next(iter(pin.specifier)).version
            for pin in pins
            if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
        ]
        assert versions, f"{requirement.name} has no line in constraints.txt: make constraints"
        for version in versions:
            assert requirement.specifier.contains(version), f"{requirement} does not allow the tested {version}"


def test_pins_are_exact_and_come_from_any_index(pins: list[Requirement]) -> None:
    for pin in pins:
        assert pin.url is None
        assert [s.operator for s in pin.specifier] == ["=="]
        assert "+" not in str(pin.specifier), f"{pin} names a local build"


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_each_python_has_one_pin_a_package(pins: list[Requirement], minor: int) -> None:
    python = {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.5",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    names = [canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate(python)]
    assert len(names) == len(set(names))


def test_overridden_packages_stay_out_of_the_pins(pins: list[Requirement]) -> None:
    assert "torchvision" not in {pin.name for pin in pins}


def test_entry_point_is_the_command_line() -> None:
    (ov,) = metadata.entry_points(group="console_scripts", name="ov")
    assert ov.value == "ov_model.cli:main"
    assert callable(ov.load())


def test_version_has_one_source() -> None:
    import ov_model

    assert metadata.version("ov-lake") == ov_model.__version__


def test_dagster_and_dg_agree_on_the_code_location(pyproject: dict[str, Any]) -> None:
    tool = pyproject["tool"]
    assert tool["dagster"]["code_location_name"] == tool["dg"]["project"]["code_location_name"]
    assert tool["dagster"]["module_name"].startswith(tool["dg"]["project"]["root_module"] + ".")


def test_readme_shows_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"```.*?```|`[^`]+`", readme, re.DOTALL))))
    assert {"demo", "test", "ui"} <= shown <= targets


def test_readme_shows_every_command_of_ov_and_no_other() -> None:
    from ov_model.cli import app

    shown = set(re.findall(r"^\| `ov ([a-z0-9-]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert shown == {name for name in app if not name.startswith("-")}


def test_readme_links_to_files_that_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text())
        assert [target for target in targets if not (ROOT / target).exists()] == []


def test_ci_runs_the_documented_test_command() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_tracked_files_are_small() -> None:
    assert [f"{p} {p.stat().st_size}" for p in tracked_files() if p.stat().st_size > 1_000_000] == []


def test_no_unfinished_work_is_tracked() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    text = [path for path in tracked_files() if path.suffix in (".py", ".yaml", ".toml", ".md")]
    assert [str(path) for path in text if marks.search(path.read_text(encoding="utf-8"))] == []
