"""How commands print: tables as wide as the terminal, JSON on standard output."""

from __future__ import annotations

import json
import sys

from rich.console import Console

_LOG_WIDTH = 160


def console() -> Console:
    """Where tables go: as wide as the terminal, and wide enough for a log where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)


def print_json(value: object) -> None:
    """Indented JSON on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))
