"""What a scored benchmark leaves behind: tidy rows in Parquet, and each document's own score.

A row is one (checkpoint, benchmark, metric, run). MISS and invalid are columns of every row: no score is averaged
without saying how many of its videos were what they should be.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.errors import UpstreamError
from ov_model.lake.files import atomic_write

SCORES, SAMPLE_SCORES, REPORT = "scores.parquet", "sample_scores.parquet", "report.json"
_TYPES: dict[Any, Any] = {
    "str": pl.String,
    "int": pl.Int64,
    "float": pl.Float64,
    "float | None": pl.Float64,
    "bool": pl.Boolean,
}


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One metric of one scored benchmark.

    Args:
        task: lmms-eval's, a leaf of a group or the whole; headline: the benchmark's one figure.
        value: as lmms-eval gives it; percent: the same in percent.
        run: identity and attempt, the folder's last two parts.
        visual: `codec` mosaics or plain `frames`; hit, miss, invalid: documents whose video has an asset, has none, has
            one that may not be used; frames: documents scored on plain frames, images and text: those without video.
        unhashed: HITs whose asset says no content hash and was accepted all the same.
        signals, training_signals: JSON, signal -> videos, of the assets and of the checkpoint's training data.
        visual_tokens: mean of the documents. started_at: ISO 8601, UTC.
    """

    checkpoint: str
    checkpoint_hash: str
    benchmark: str
    task: str
    metric: str
    headline: bool
    value: float
    percent: float
    stderr: float | None
    run: str
    visual: str
    fallback: str
    hit: int
    miss: int
    invalid: int
    unhashed: int
    frames: int
    images: int
    text: int
    samples: int
    docs: int
    signals: str
    training_signals: str
    visual_tokens: float
    max_new_tokens: int
    config_hash: str
    assets_hash: str
    dataset_hash: str
    code_hash: str
    versions: str
    started_at: str
    seconds: float
    folder: str


SCHEMA: dict[str, Any] = {field.name: _TYPES[field.type] for field in fields(ScoreRow)}
SAMPLE_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "doc_id": pl.Int64,
    "metric": pl.String,
    "score": pl.Float64,
    "answer": pl.String,
    "greedy": pl.Boolean,
    "cluster": pl.String,
}


def write_scores(folder: Path, rows: Sequence[ScoreRow], samples: pl.DataFrame) -> None:
    """Write both tables; `scores.parquet` comes last, its presence means that the run is whole."""
    with atomic_write(folder / SAMPLE_SCORES) as stream:
        samples.write_parquet(stream)
    with atomic_write(folder / SCORES) as stream:
        pl.DataFrame([asdict(row) for row in rows], schema=SCHEMA).write_parquet(stream)


def read_rows(folder: Path) -> list[ScoreRow]:
    """The rows of a finished run.

    Raises:
        UpstreamError: the run is not finished.
    """
    path = folder / SCORES
    if not path.is_file():
        raise UpstreamError(
            f"{folder} holds no finished evaluation ({SCORES} is missing); run ov eval again to finish it"
        )
    return [ScoreRow(**row) for row in pl.read_parquet(path).iter_rows(named=True)]


def read_samples(folder: Path) -> pl.DataFrame:
    """task, doc_id, metric, score, answer, greedy, cluster of a finished run, a row per document and metric."""
    return pl.read_parquet(folder / SAMPLE_SCORES)


def sample_table(
    tasks: Mapping[str, Any], logged: Mapping[str, Iterable[Mapping[str, Any]]], clusters: Mapping[tuple[str, int], str]
) -> pl.DataFrame:
    """Each document's own score: the task's aggregation over that document alone.

    Args:
        tasks: lmms-eval's task objects by leaf name; logged: its sample logs.
        clusters: (task, doc_id) -> the video that the document is about; documents of one video are not independent.
    Returns:
        SAMPLE_SCHEMA; score is null where the metric means nothing for a single document.
    """
    rows = []
    for name, samples in logged.items():
        task = tasks[name]
        aggregations = task.aggregation()
        for sample in samples:
            generation = next((arg for arg in sample["arguments"] if isinstance(arg, dict)), {})
            for metric, aggregate in aggregations.items():
                if metric in sample:
                    score = _alone(aggregate, sample[metric], task)
                    doc_id = int(sample["doc_id"])
                    rows.append(
                        {
                            "task": name,
                            "doc_id": doc_id,
                            "metric": metric,
                            "score": score,
                            "answer": json.dumps(sample["filtered_resps"], ensure_ascii=False, default=str),
                            "greedy": is_greedy(generation),
                            "cluster": clusters.get((name, doc_id), f"{name}/{doc_id}"),
                        }
                    )
    return pl.DataFrame(rows, schema=SAMPLE_SCHEMA).sort("task", "doc_id", "metric")


def is_greedy(generation: Mapping[str, Any]) -> bool:
    """Whether generation options mean the most likely answer, the same each time."""
    return not generation.get("do_sample") and not (generation.get("temperature") or 0) > 0


def _alone(aggregate: Any, value: Any, task: Any) -> float | None:
    """A metric of one document: a number that is none, or that the aggregation cannot make, is null."""
    given = {"args": task.args} if "args" in inspect.signature(aggregate).parameters else {}
    try:
        return float(aggregate([value], **given))
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, AttributeError):
        return None
