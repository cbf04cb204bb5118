"""What a materialization says in the UI: counts, hashes, a few rows, for mosaics a picture; small by rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ov_assets.previews import Pack, preview_markdown
from ov_model.lake.dataset import Dataset
from ov_model.lake.layout import POSITIONS, Shard
from ov_model.lake.ledger import FAILED, OK, Report
from ov_model.lake.mixture import MixtureReport

_SAMPLE_ROWS = 5
_FAILURE_ROWS = 10
_CELL = 160
_PREVIEWED = 2


def report_metadata(dataset: Dataset, report: Report, shard: Shard | None) -> dict[str, Any]:
    """Metadata of one stage's materialization, of one shard or of the whole dataset."""
    row_count = "dagster/row_count" if shard is None else "dagster/partition_row_count"
    metadata: dict[str, Any] = {
        row_count: report.rows,
        "work": work_done(report),
        "computed": report.computed,
        "rows": report.rows,
        "ok": report.ok + report.passed,
        "failed": report.failed,
        "failed by reason": report.reasons,
        "signals": report.signals,
        "seconds": round(report.seconds, 3),
        "videos per second": round(report.computed / report.seconds, 3) if report.seconds else 0.0,
        "bytes": report.bytes,
        "config hash": report.config_hash,
    }
    if report.duplicates:
        metadata["duplicates"] = report.duplicates
    if report.ledger is not None:
        metadata["ledger"] = dg.MetadataValue.path(str(report.ledger))
        ledger = pl.read_parquet(report.ledger)
        metadata["sample"] = _ledger_table(ledger.head(_SAMPLE_ROWS), ("id", "media", "kind", "status", "signal"))
        failures = ledger.filter(pl.col("status") == FAILED).head(_FAILURE_ROWS)
        if failures.height:
            metadata["failures"] = _ledger_table(failures, ("id", "media", "reason", "detail"))
        if report.stage == "mosaics":
            metadata["preview"] = _mosaics_preview(dataset, ledger)
    if report.outputs:
        metadata["dagster/uri"] = str(report.outputs[0])
        if report.stage in ("training_jsonl", "train_jsonl"):
            metadata["sample"] = jsonl_table(report.outputs[0])
    return metadata


def work_done(report: Report) -> str:
    """One line on what this run did and what it found done."""
    if not report.computed:
        return f"0 of {report.rows} samples computed"
    return f"{report.rows - report.reused} of {report.rows} samples computed, {report.computed} media read"


def mixture_metadata(report: MixtureReport) -> dict[str, Any]:
    """Metadata of a mixture's materialization."""
    sources = [{"dataset": name, "taken": taken, "of": report.available[name]} for name, taken in report.counts.items()]
    return {
        "dagster/row_count": report.rows,
        "dagster/uri": str(report.out),
        "work": f"{0 if report.reused else report.rows} of {report.rows} rows written",
        "rows": report.rows,
        "sources": _table(sources),
        "seconds": round(report.seconds, 3),
        "bytes": report.bytes,
        "config hash": report.config_hash,
        "manifest": dg.MetadataValue.path(str(report.manifest)),
        "sample": jsonl_table(report.out),
    }


def jsonl_table(path: Path) -> dg.TableMetadataValue:
    """The first rows of a training JSONL: id, what is asked, how many images."""
    rows = []
    with path.open("rb") as file:
        for line in islice(file, _SAMPLE_ROWS):
            record = json.loads(line)
            turns = record.get("conversations") or [{}]
            images = record.get("image") or []
            rows.append(
                {
                    "id": _cell(record.get("id")),
                    "question": _cell(turns[0].get("value", "").replace("<image>\n", "")),
                    "answer": _cell(turns[1].get("value", "") if len(turns) > 1 else ""),
                    "images": 1 if isinstance(images, str) else len(images),
                    "positions_thw": _cell(record.get("positions_thw", "")),
                }
            )
    return _table(rows)


def _ledger_table(frame: pl.DataFrame, columns: Iterable[str]) -> dg.TableMetadataValue:
    return _table([{name: _cell(row[name]) for name in columns} for row in frame.iter_rows(named=True)])


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=_schema(rows))


def _schema(rows: list[dict[str, Any]]) -> dg.TableSchema:
    first: Mapping[str, Any] = rows[0] if rows else {}
    kinds = {int: "int", float: "float", bool: "bool"}
    return dg.TableSchema([dg.TableColumn(k, kinds.get(type(v), "string")) for k, v in first.items()])


def _cell(value: object) -> str:
    text = str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _mosaics_preview(dataset: Dataset, ledger: pl.DataFrame) -> dg.MarkdownMetadataValue:
    packs = []
    for row in ledger.filter((pl.col("status") == OK) & (pl.col("kind") == "video")).iter_rows(named=True):
        outputs = [dataset.root / path for path in row["outputs"]]
        mosaics = tuple(path for path in outputs if path.suffix == ".jpg")
        positions = [path for path in outputs if path.name == POSITIONS]
        if mosaics and positions:
            packs.append(Pack(row["id"], mosaics, positions[0]))
        if len(packs) == _PREVIEWED:
            break
    if not packs:
        return dg.MetadataValue.md("No mosaics in this shard.")
    return dg.MetadataValue.md(preview_markdown(packs, dataset.spec.pack.geometry))
