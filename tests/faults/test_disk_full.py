"""A disk that fills up at any point: an error that says so, and the same bytes once there is room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.processes import ROOT
from tests.faults.stages import TOOLS, Playground

NAMESPACE = ("unshare", "--map-root-user", "--mount")


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground.make(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a namespace of its own may mount a small file system on."""
    folder = tmp_path_factory.mktemp("small")
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")
    return folder


def test_stages_on_disks_of_every_size(playground: Playground, disk: Path) -> None:
    command = [*NAMESPACE, sys.executable, "-m", "tests.faults.on_small_disk", str(playground.folder), str(disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert done.stdout.count("too small") == len(TOOLS)


def test_the_command_says_so_in_one_line(playground: Playground, disk: Path) -> None:
    out = disk / "out"
    command = " ".join(map(str, [sys.executable, "-m", "ov_model.cli", *playground.arguments("stage1", out)]))
    script = f"mount -t tmpfs -o size=80k none {disk} && exec {command}"
    done = subprocess.run([*NAMESPACE, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
