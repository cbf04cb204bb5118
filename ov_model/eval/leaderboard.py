"""Checkpoints against benchmarks: the newest finished run of each, published figures beside them, marked as such.

A score that rests on a video without its asset carries a dagger and the count; nothing is averaged over benchmarks.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.eval.benchmarks import BENCHMARKS
from ov_model.eval.results import SCHEMA, SCORES
from ov_model.lake.files import atomic_write, write_bytes

MEASURED, PUBLISHED, DELTA = "measured", "published", "codec - frames"
PLAIN = "measured on plain frames"
CSV, PARQUET, MARKDOWN, PLOT = "leaderboard.csv", "leaderboard.parquet", "leaderboard.md", "leaderboard.png"
_KINDS = (MEASURED, PLAIN, DELTA, PUBLISHED)
_COLUMNS = (
    *("checkpoint", "kind", "benchmark", "percent", "stderr", "hit", "miss", "invalid"),
    *("frames", "samples", "docs", "signals", "started_at", "run", "source"),
)
_SCHEMA: dict[str, Any] = {name: SCHEMA.get(name, pl.String) for name in _COLUMNS}
PUBLISHED_NAME = "OneVision encoder, Qwen3-4B probe"


def read_scores(roots: Iterable[Path]) -> pl.DataFrame:
    """The rows of every finished run below the roots, oldest first."""
    found = sorted({path for root in roots for path in root.rglob(SCORES)})
    frames = [pl.read_parquet(path).select(list(SCHEMA)) for path in found]
    return pl.concat(frames or [pl.DataFrame(schema=SCHEMA)]).sort("started_at", "run", maintain_order=True)


def leaderboard(scores: pl.DataFrame) -> pl.DataFrame:
    """A row per checkpoint, kind and benchmark: newest headline score, its delta to plain frames, what is published.

    Args:
        scores: as `read_scores` gives them.
    Returns:
        checkpoint, kind (measured, measured on plain frames, codec - frames, published), benchmark, percent, stderr,
        counts of videos (hit, miss, invalid) and documents (frames, samples, docs), signals, started_at, run, source.
    """
    newest = (
        scores.filter("headline")
        .unique(["checkpoint", "benchmark", "visual"], keep="last", maintain_order=True)
        .with_columns(
            pl.when(pl.col("visual") == "frames").then(pl.lit(PLAIN)).otherwise(pl.lit(MEASURED)).alias("kind"),
            pl.col("folder").alias("source"),
        )
        .select(_COLUMNS)
    )
    parts = [newest, _deltas(newest), _published(newest["benchmark"].unique().to_list())]
    order = {name: place for place, name in enumerate(BENCHMARKS)}
    return (
        pl.concat(parts)
        .with_columns(
            pl.col("kind").replace_strict({kind: i for i, kind in enumerate(_KINDS)}).alias("_kind"),
            pl.col("benchmark").replace_strict(order, default=len(order)).alias("_order"),
        )
        .sort(pl.col("kind") == PUBLISHED, "checkpoint", "_kind", "_order")
        .drop("_kind", "_order")
    )


def _deltas(newest: pl.DataFrame) -> pl.DataFrame:
    codec, frames = (newest.filter(pl.col("kind") == kind) for kind in (MEASURED, PLAIN))
    joined = codec.join(
        frames.select("checkpoint", "benchmark", pl.col("percent").alias("plain")), on=["checkpoint", "benchmark"]
    )
    return joined.with_columns(
        (pl.col("percent") - pl.col("plain")).alias("percent"),
        pl.lit(None, pl.Float64).alias("stderr"),
        pl.lit(DELTA).alias("kind"),
    ).select(_COLUMNS)


def _published(benchmarks: Sequence[str]) -> pl.DataFrame:
    """The published figures of the benchmarks at hand."""
    rows = []
    for name in benchmarks:
        published = BENCHMARKS[name].published if name in BENCHMARKS else None
        if published is not None:
            for visual in ("codec", "frames"):
                about = {"checkpoint": f"{PUBLISHED_NAME}, {visual}", "kind": PUBLISHED, "source": published.source}
                rows.append(about | {"benchmark": name, "percent": getattr(published, visual)})
    return pl.DataFrame(rows, schema=_SCHEMA)


@dataclass(frozen=True)
class Table:
    """The board as text: a header, then a row per checkpoint and kind."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """GitHub's table form."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def as_table(board: pl.DataFrame) -> Table:
    """Benchmarks as columns, in the registry's order; `†` marks a score that rests on videos without their asset."""
    names = [name for name in BENCHMARKS if name in set(board["benchmark"])]
    names += sorted(set(board["benchmark"]) - set(names))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in board.iter_rows(named=True):
        rows.setdefault((row["checkpoint"], row["kind"]), {})[row["benchmark"]] = _cell(row)
    header = ("checkpoint", "kind", *names)
    return Table(header, tuple((*key, *(cells.get(name, "") for name in names)) for key, cells in rows.items()))


def _cell(row: dict[str, Any]) -> str:
    if row["kind"] == PUBLISHED:
        return f"{row['percent']:.1f}"
    if row["kind"] == DELTA:
        return f"{row['percent']:+.2f}"
    videos = row["hit"] + row["miss"] + row["invalid"]
    text = f"{row['percent']:.2f}"
    if row["kind"] == MEASURED and videos:
        marked = row["miss"] or row["invalid"]
        text += (" †" if marked else "") + f" HIT {row['hit']}/{videos}"
        text += "".join(f", {name} {row[key]}" for name, key in (("MISS", "miss"), ("invalid", "invalid")) if row[key])
    if row["samples"] != row["docs"]:
        text += f", {row['samples']} of {row['docs']} questions"
    return text


def write_board(folder: Path, scores: pl.DataFrame) -> pl.DataFrame:
    """Write the board as CSV, Parquet and Markdown, and the plot over time; returns the board."""
    board = leaderboard(scores)
    write_bytes(folder / CSV, board.write_csv().encode())
    with atomic_write(folder / PARQUET) as stream:
        board.write_parquet(stream)
    write_bytes(folder / MARKDOWN, as_table(board).markdown().encode())
    write_bytes(folder / PLOT, draw(scores))
    return board


def draw(scores: pl.DataFrame, width: int = 760, height: int = 360) -> bytes:
    """PNG of the headline scores over time, a line per checkpoint, benchmark and input; published ones dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colors: dict[str, str] = {}
    headline = scores.filter("headline")
    for (checkpoint, benchmark, visual), runs in headline.group_by(
        "checkpoint", "benchmark", "visual", maintain_order=True
    ):
        times = [datetime.fromisoformat(text) for text in runs["started_at"]]
        color = colors.setdefault(str(benchmark), f"C{len(colors) % 10}")
        marker = "o" if visual == "codec" else "x"
        label = f"{checkpoint}, {benchmark}" + ("" if visual == "codec" else ", plain frames")
        axes.plot(times, runs["percent"].to_list(), color=color, marker=marker, label=label)  # pyright: ignore[reportArgumentType]
    for benchmark, color in colors.items():
        published = BENCHMARKS[benchmark].published if benchmark in BENCHMARKS else None
        if published is not None:
            axes.axhline(published.codec, color=color, linestyle="--", linewidth=1, label=f"published, {benchmark}")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel("score, %")
    axes.grid(alpha=0.3)
    if colors:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
