"""Two runs held against each other: the same inputs must give the same answers; other inputs give a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from ov_model.eval.results import cluster_error

_SHOWN = 20


@dataclass(frozen=True)
class Reproduction:
    """Greedy answers of two runs on the same inputs: how many were compared, and which differ ("task/doc_id")."""

    compared: int
    differing: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.differing


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of two runs' per-document scores, now minus before, with its 95 % interval.

    documents: in both; only_now, only_before: in one. low, high: NaN where fewer than two videos leave no estimate.
    """

    metric: str
    mean: float
    low: float
    high: float
    documents: int
    only_now: int
    only_before: int

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:+.4f} to {self.high:+.4f}" if math.isfinite(self.low) else "no interval"
        return f"{self.metric} {self.mean:+.4f} ({interval}, {self.documents} documents)"


def reproduction(now: pl.DataFrame, before: pl.DataFrame) -> Reproduction:
    """Compare greedy answers document by document; a document that one run lacks differs too."""
    keys = ["task", "doc_id"]
    greedy = [frame.filter(pl.col("greedy")).select(*keys, "answer").unique(keys) for frame in (now, before)]
    joined = greedy[0].join(greedy[1], on=keys, how="full", coalesce=True, suffix="_before").sort(keys)
    differs = joined.filter(pl.col("answer").ne_missing(pl.col("answer_before")))
    names = tuple(f"{task}/{doc_id}" for task, doc_id in differs.select(keys).iter_rows())
    return Reproduction(joined.height, names)


def paired_difference(now: pl.DataFrame, before: pl.DataFrame, metric: str) -> Difference | None:
    """The paired difference of a metric, None where no document has it in both runs.

    Documents about one video are not independent: the standard error is clustered by video (`cluster_error`), the
    interval is mean +- 1.96 standard errors.
    """
    keys = ["task", "doc_id"]
    frames = [frame.filter((pl.col("metric") == metric) & pl.col("score").is_not_null()) for frame in (now, before)]
    joined = frames[0].join(frames[1].select(*keys, pl.col("score").alias("before")), on=keys, how="inner")
    if not joined.height:
        return None
    change_N = (joined["score"] - joined["before"]).to_numpy()
    mean, error = float(change_N.mean()), cluster_error(change_N, joined["cluster"])
    return Difference(
        metric=metric,
        mean=mean,
        low=mean - 1.96 * error,
        high=mean + 1.96 * error,
        documents=joined.height,
        only_now=frames[0].height - joined.height,
        only_before=frames[1].height - joined.height,
    )


def describe_reproduction(found: Reproduction) -> str:
    """In words, the first differing documents named."""
    if found.equal:
        return f"{found.compared} greedy answers, all as before"
    more = f", and {len(found.differing) - _SHOWN} more" if len(found.differing) > _SHOWN else ""
    return (
        f"{len(found.differing)} of {found.compared} greedy answers differ: {', '.join(found.differing[:_SHOWN])}{more}"
    )
