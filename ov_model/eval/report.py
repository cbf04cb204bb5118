"""Scores and the leaderboard on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from ov_model.eval.leaderboard import Table

if TYPE_CHECKING:
    from ov_model.eval.run import Scored


def print_scored(scored: Sequence[Scored], console: Console) -> None:
    """A row per benchmark: score, videos by HIT, MISS and invalid, signals, time; then what the comparison found."""
    grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("checkpoint", "benchmark", "metric"):
        grid.add_column(name, no_wrap=True)
    for name in ("score", "HIT", "MISS", "invalid", "questions", "s"):
        grid.add_column(name, justify="right")
    grid.add_column("signals")
    for one in scored:
        row = one.headline
        counts = (str(value) for value in (row.hit, row.miss, row.invalid, row.samples))
        seconds = "found" if one.reused else f"{row.seconds:.1f}"
        signals = ", ".join(f"{name} {count}" for name, count in one.report["signals"].items())
        grid.add_row(row.checkpoint, row.benchmark, row.metric, f"{row.percent:.2f}", *counts, seconds, signals)
    console.print(grid)
    for one in scored:
        for line in one.report["notes"]:
            console.print(f"{one.benchmark}: {line}", soft_wrap=True, markup=False, highlight=False)
        console.print(str(one.folder), soft_wrap=True, markup=False, highlight=False)


def print_board(table: Table, console: Console) -> None:
    """The leaderboard; a dagger marks what rests on videos without their asset."""
    grid = Grid(*table.header, box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for row in table.rows:
        grid.add_row(*row)
    console.print(grid)
