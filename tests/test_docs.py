"""Commands shown in docs/ work: a block marked ```sh runnable is run as it stands, those of a page in one shell.

The shell starts in a folder that looks like the project, with a lake of its own, the environment active.
Words after `runnable` name parts that a machine may lack (`ray`): the page is skipped without them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ov_assets.environment import PROJECT
from ov_model.demo import write_raw_dataset
from tests.conftest import require_or_skip

BLOCK = re.compile(r"^```sh runnable(?P<parts>[^\n]*)\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = {"ray": "dagster_ray", "k8s": "dagster_k8s"}
PAGES = sorted(page for page in (PROJECT / "docs").glob("*.md") if BLOCK.search(page.read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's files under another folder, without a lake."""
    folder = tmp_path / "project"
    folder.mkdir()
    for entry in PROJECT.iterdir():
        if entry.name not in ("lake", "dagster_home") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / "dagster_home").mkdir()
    (folder / "dagster_home" / "dagster.yaml").symlink_to(PROJECT / "dagster_home" / "dagster.yaml")
    write_raw_dataset(folder / "lake" / "raw" / "demo")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page: Path, project: Path) -> None:
    script = ["set -eux"]
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        for part in block["parts"].split():
            if find_spec(MODULES[part]) is None:
                require_or_skip(part, f"{MODULES[part]} is not installed; {page.name} needs it")
        script.append(block["commands"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OV_", "DAGSTER_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OV_LAKE": str(project / "lake"),
        "PYTHONPATH": str(PROJECT),
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=project, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


def test_at_least_one_page_has_commands() -> None:
    assert PAGES
