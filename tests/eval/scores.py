"""Rows of a finished run, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from ov_model.eval.results import SAMPLE_SCHEMA, SCHEMA, ScoreRow, write_scores


def row(**fields: Any) -> ScoreRow:
    """A headline row; what is not given is empty."""
    empty: dict[Any, Any] = {pl.String: "", pl.Int64: 0, pl.Float64: 0.0, pl.Boolean: True}
    usual = {name: empty[kind] for name, kind in SCHEMA.items()}
    usual |= {"checkpoint": "vlm", "benchmark": "videomme", "task": "videomme", "metric": "score", "visual": "codec"}
    usual |= {"hit": 3, "samples": 9, "docs": 9, "started_at": "2026-01-01T00:00:00+00:00", "stderr": None}
    return ScoreRow(**usual | fields)


def samples(
    scores: list[float | None], answers: list[str] | None = None, clusters: list[str] | None = None, metric: str = "acc"
) -> pl.DataFrame:
    """A task's documents with their scores, greedy answers and videos."""
    count = len(scores)
    values = {
        "task": ["t"] * count,
        "doc_id": list(range(count)),
        "metric": [metric] * count,
        "score": scores,
        "answer": answers or ["A"] * count,
        "greedy": [True] * count,
        "cluster": clusters or [f"video{i}" for i in range(count)],
    }
    return pl.DataFrame(values, schema=SAMPLE_SCHEMA)


def finished(root: Path, name: str, *rows: ScoreRow) -> Path:
    """A finished run's folder below a root."""
    folder = root / name
    folder.mkdir(parents=True)
    write_scores(folder, rows, samples([1.0]))
    return folder
