"""What a scored benchmark leaves behind: tidy rows in Parquet, and each document's own score.

A row is one (checkpoint, benchmark, metric, run). MISS and invalid are columns of every row: no score is averaged
without saying how many of its videos were what they should be.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ov_model.errors import EvaluationFailed, UpstreamError
from ov_model.eval.benchmarks import Benchmark
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
        value: as lmms-eval gives it; percent: the same in percent, but of a task that is not in the
            registry as it is; stderr: of percent, clustered by video.
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


def current(visual: str) -> str:
    """Name of the link to a benchmark's run that was finished last, on mosaics or on plain frames."""
    return f"current-{visual}"


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
    tasks: Mapping[str, Any],
    logged: Mapping[str, Iterable[Mapping[str, Any]]],
    clusters: Mapping[tuple[str, int], str],
    part: int | None = None,
) -> pl.DataFrame:
    """Each document's own score: the task's aggregation over that document alone.

    Args:
        tasks: lmms-eval's task objects by leaf name; logged: its sample logs.
        clusters: (task, doc_id) -> the video that the document is about; documents of one video are not independent.
        part: which value counts where a metric is several.
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
                    score = _alone(aggregate, sample[metric], part)
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


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Metrics as numbers: several values of one are `metric[0]`, `metric[name]`; what is no number is left out."""
    for name, value in values.items():
        parts = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, (list, tuple))
            else ()
        )
        for key, part in parts:
            if isinstance(part, Real):
                yield f"{name}[{key}]", float(part)
        if isinstance(value, Real):
            yield name, float(value)


@dataclass(frozen=True)
class Metric:
    """A metric of a leaf task, or of the whole benchmark."""

    task: str
    name: str
    value: float

    @property
    def key(self) -> str:
        """The metric's name in the sample table."""
        return self.name.partition("[")[0]


def headline_of(benchmark: Benchmark, found: Sequence[Metric], table: pl.DataFrame) -> Metric:
    """The benchmark's one figure; of a group, the mean over its tasks weighted by their questions.

    Raises:
        EvaluationFailed: no task has that metric.
    """
    part = benchmark.metric_part
    wanted = (
        {benchmark.metric, f"{benchmark.metric}[{part}]"} if benchmark.metric else {found[0].name} if found else set()
    )
    metrics = [metric for metric in found if metric.name in wanted]
    if not metrics:
        raise EvaluationFailed(
            f"benchmark {benchmark.name}: lmms-eval gave no number for {benchmark.metric or 'any metric'}; it gave "
            f"{', '.join(metric.name for metric in found) or 'nothing'}"
        )
    if len(metrics) == 1:
        return replace(metrics[0], task=benchmark.task) if metrics[0].task != benchmark.task else metrics[0]
    weights = [table.filter(task=metric.task)["doc_id"].n_unique() for metric in metrics]
    mean = sum(metric.value * weight for metric, weight in zip(metrics, weights, strict=True)) / sum(weights)
    return Metric(benchmark.task, metrics[0].name, mean)


def standard_error(samples: pl.DataFrame, scale: float) -> float | None:
    """Standard error of the mean score, documents of one video taken together; None where it cannot be told."""
    scored = samples.filter(pl.col("score").is_not_null())
    if scored.height < samples.height or not scored.height:
        return None
    error = cluster_error(scored["score"].to_numpy(), scored["cluster"])
    return error * scale if math.isfinite(error) else None


def cluster_error(value_N: NDArray[np.float64], clusters: pl.Series) -> float:
    """Standard error of a mean when values of one cluster are not independent; NaN for fewer than two clusters.

    Sums of residuals over clusters, with the m/(m-1) correction for m clusters.
    """
    residuals = pl.DataFrame({"cluster": clusters, "residual": value_N - value_N.mean()})
    sum_M = residuals.group_by("cluster").agg(pl.col("residual").sum())["residual"].to_numpy()
    if len(sum_M) < 2:
        return math.nan
    return float(np.sqrt(np.square(sum_M).sum() * len(sum_M) / (len(sum_M) - 1))) / len(value_N)


def _alone(aggregate: Any, value: Any, part: int | None) -> float | None:
    """A metric of one document: a number that is none, or that the aggregation cannot make, is null."""
    given = {"args": None} if "args" in inspect.signature(aggregate).parameters else {}
    try:
        result = aggregate([value], **given)
        return float(result if part is None or isinstance(result, Real) else result[part])
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, AttributeError):
        return None
