"""metrics.jsonl: a line a step, appended as training goes, so that others can follow it.

A run that was resumed has lines of steps that were done twice; `read_metrics` keeps the last of each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends to metrics.jsonl, a whole line at a time; a line that a killed run left torn is closed first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        size = os.fstat(self.file).st_size
        if size and os.pread(self.file, 1, size - 1) != b"\n":
            os.write(self.file, b"\n")

    def append(self, values: dict[str, Any]) -> None:
        os.write(self.file, json.dumps(values).encode() + b"\n")

    def close(self) -> None:
        os.close(self.file)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metrics of every step, ascending; torn lines are left out."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        steps[values["step"]] = values
    return [steps[step] for step in sorted(steps)]
