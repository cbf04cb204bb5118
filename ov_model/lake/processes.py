"""Telling a live process from one that is gone, or whose number was given to another."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Start time of a live process, as text; None when there is none, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "alive"
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
