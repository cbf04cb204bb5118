"""`ov` as users run it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ov_model.geometry import Geometry
from tests.eval.assets import SMALL

ROOT = Path(__file__).parents[2]


def ov(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; its table and messages are in `stdout` and `stderr`."""
    command = [sys.executable, "-m", "ov_model.cli", *map(str, arguments)]
    environment = {**(os.environ if env is None else env), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def small(geometry: Geometry = SMALL) -> list[str]:
    """Options of `ov precompute` for a geometry."""
    sizes = (geometry.sequence_length, geometry.num_images, geometry.square_size, geometry.patch_size)
    names = ("--seq_len_frames", "--num_images", "--square_size", "--patch_size")
    return [part for name, size in zip(names, sizes, strict=True) for part in (name, str(size))]
