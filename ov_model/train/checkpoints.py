"""Checkpoints of a run: complete ones are marked, half-written ones are never resumed from."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ov_model.errors import UsageError
from ov_model.lake.files import sync_folder, write_json

COMPLETE = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def mark_complete(folder: Path, facts: dict[str, Any]) -> None:
    """Flush every file of a checkpoint to disk, then write its mark."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        else:
            sync_folder(path)
    write_json(folder / COMPLETE, facts)


def checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [(int(match[1]), path) for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / COMPLETE).is_file()]


def last_checkpoint(run: Path, *, world: int, zero: int) -> Path | None:
    """The checkpoint to go on from, if any.

    Raises:
        UsageError: it was written by another number of processes, or another ZeRO stage, whose shards don't fit.
    """
    found = checkpoints(run)
    if not found:
        return None
    facts = json.loads((found[-1] / COMPLETE).read_bytes())
    same_shards = facts["zero"] == zero and (not zero or facts["world"] == world)
    if not same_shards:
        raise UsageError(
            f"{found[-1]} was written by {facts['world']} processes with ZeRO {facts['zero']}, not {world} with ZeRO "
            f"{zero}; go on as before, or train into another folder"
        )
    return found[-1]


def drop_old(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints, and what was left half-written before them."""
    complete = checkpoints(run)
    kept = set(complete[-keep:])
    newest = int(_NAME.fullmatch(complete[-1].name)[1]) if complete else -1  # type: ignore[index]
    for path in run.glob("checkpoint-*"):
        match = _NAME.fullmatch(path.name)
        if match and path not in kept and int(match[1]) <= newest:
            (path / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path)
