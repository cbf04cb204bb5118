"""Plots of a stage's materialization for the UI, as small Markdown: what failed, how quick it was, where energy is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from ov_assets.previews import plot, png_markdown
from ov_model.energy_plot import energy_plot
from ov_model.lake.dataset import RECORDS, TRAIN_JSONL, TRAINING_JSONL, Dataset
from ov_model.lake.layout import META_SUFFIX, VISIDX_SUFFIX, Shard
from ov_model.lake.ledger import OK, PASSED, Report
from ov_model.lake.stages import MOSAICS, RAW, VISIDX
from ov_model.plots import GOOD, LINE, draw_counts, draw_runs, draw_spread

SPEED = "videos per second"
_REMEMBERED = 30
_CURVES = 2


def stage_pictures(
    dataset: Dataset, report: Report, shard: Shard | None, ledger: pl.DataFrame | None, speeds: Sequence[float]
) -> dict[str, dg.MarkdownMetadataValue]:
    """The plots of one stage, by what the UI calls them.

    Args:
        ledger: the shard's rows; None where the stage has no shards.
        speeds: videos per second of earlier runs that computed something, oldest first.
    """
    found: dict[str, bytes] = {}
    if report.stage == RECORDS:
        kinds = Counter(record.kind for part in dataset.shards for record in dataset.records(part))
        found["records by kind"] = draw_counts(kinds, "records by kind", LINE)
    if report.stage == RAW and ledger is not None:
        lengths = [fact["duration"] for fact in _facts(ledger) if fact.get("duration")]
        if lengths:
            found["lengths"] = draw_spread(lengths, "how long the videos are", "seconds")
    if report.stage in (TRAINING_JSONL, TRAIN_JSONL):
        rows = _training_rows(dataset, shard)
        found["rows by kind"] = draw_counts(rows, "training rows by kind", GOOD)
    if report.reasons:
        found["why samples failed"] = draw_counts(report.reasons, "failed samples by reason")
    every = [*speeds, *([report.computed / report.seconds] if report.computed and report.seconds else [])]
    if every and report.stage in (RAW, VISIDX, MOSAICS):
        found["speed over runs"] = draw_runs(every, "speed of each run that computed something", SPEED)
    shown = {name: plot(png, name) for name, png in found.items()}
    if report.stage == VISIDX and ledger is not None:
        shown = {"energy over time": dg.MetadataValue.md(_energy(dataset, ledger)), **shown}
    return shown


def past_speeds(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> list[float]:
    """Videos per second of an asset's earlier materializations that computed something, oldest first."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    speeds = []
    for record in instance.fetch_materializations(wanted, limit=_REMEMBERED).records:
        made = record.asset_materialization
        speed = made.metadata.get(SPEED) if made else None
        if speed is not None and isinstance(speed.value, float) and speed.value > 0:
            speeds.append(speed.value)
    return speeds[::-1]


def _energy(dataset: Dataset, ledger: pl.DataFrame) -> str:
    """Energy over time of a few videos, of as many signals as there are."""
    videos = ledger.filter((pl.col("status") == OK) & (pl.col("kind") == "video"))
    first = videos.unique("signal", keep="first", maintain_order=True)
    rows = pl.concat([first, videos]).unique("content_hash", keep="first", maintain_order=True).head(_CURVES)
    parts = ["Line: mean energy of each sampled frame. Bars: how much of it was chosen; the first frame is kept whole."]
    for row in rows.iter_rows(named=True):
        prefix = Path(row["outputs"][0].removesuffix(VISIDX_SUFFIX))
        meta_path = dataset.root / prefix.with_name(prefix.name + META_SUFFIX)
        meta = json.loads(meta_path.read_bytes())
        pos_K3 = np.load(dataset.root / row["outputs"][0], allow_pickle=False)
        frame_ids_T = np.load(dataset.root / row["outputs"][1], allow_pickle=False)
        png = energy_plot(meta, pos_K3, frame_ids_T, f"{row['id']}, signal {row['signal']}")
        if png is not None:
            parts.append(png_markdown(png, "energy over time"))
    return "\n\n".join(parts) if len(parts) > 1 else "No video of this shard has its energy recorded."


def _facts(ledger: pl.DataFrame) -> list[Mapping[str, float]]:
    return [json.loads(text) for text in ledger.filter(pl.col("status") == OK)["facts"].to_list()]


def _training_rows(dataset: Dataset, shard: Shard | None) -> dict[str, int]:
    """Usable rows by kind, of a shard or of all."""
    frames = [dataset.ledger(TRAINING_JSONL, part) for part in (dataset.shards if shard is None else [shard])]
    rows = pl.concat([frame.select("kind", "status") for frame in frames])
    usable = rows.filter(pl.col("status").is_in([OK, PASSED]))
    return dict(usable.group_by("kind").len().sort("kind").iter_rows())
