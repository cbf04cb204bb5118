"""Run in a mount namespace of its own: each tool on disks from too small to large enough, then again with room.

unshare --map-root-user --mount python -m tests.faults.on_small_disk PLAYGROUND DISK
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

from tests.faults.processes import lines
from tests.faults.stages import TOOLS, VIDEOS, Playground

STEP_KB = {"stage1": 20, "stage2": 60, "precompute": 60}
STEPS = 14


def mount(disk: Path, kilobytes: int, *, again: bool = False) -> None:
    """Mount a file system of so many kilobytes, or change its size."""
    options = f"{'remount,' if again else ''}size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)


def fill(playground: Playground, disk: Path, tool: str, kilobytes: int, workers: int) -> bool:
    """Run a tool on a disk that may be too small, then again with room; whether it was too small."""
    mount(disk, kilobytes)
    out = disk / "out"
    full = True
    try:
        playground.run_here(tool, out, num_workers=workers)
        full = False
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    if full:
        assert not list(out.rglob("*.lock")), f"{tool} in {kilobytes} KB left its lock"
        if not workers:
            assert not list(out.rglob("*.tmp")), f"{tool} in {kilobytes} KB left a temporary file"
    mount(disk, 50_000, again=True)
    done = lines(playground.journal(tool, out))
    assert done < VIDEOS or full
    playground.run_here(tool, out, num_workers=workers)
    playground.expect_as_undisturbed(tool, out)
    subprocess.run(["umount", str(disk)], check=True)
    return full


def main() -> None:
    """Print a line for each tool: how many of the disks were too small."""
    folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
    playground = Playground(folder, folder / "raw.json", folder / "videos.jsonl")
    for tool in TOOLS:
        sizes = [STEP_KB[tool] * (step + 1) for step in range(STEPS)]
        full = sum(fill(playground, disk, tool, size, 0) for size in sizes)
        print(f"{tool}: {full} of {STEPS} too small")
        assert 2 < full < STEPS
        assert fill(playground, disk, tool, sizes[full // 2], 2)


if __name__ == "__main__":
    main()
