"""What a materialization says in the UI: counts, hashes, a few rows, for mosaics a picture; small by rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ov_assets.pictures import SPEED, stage_pictures
from ov_assets.previews import BUDGET_BYTES, Pack, plot, preview_markdown
from ov_model.lake.dataset import RECORDS, TRAIN_JSONL, TRAINING_JSONL, Dataset
from ov_model.lake.index import ROWS
from ov_model.lake.layout import POSITIONS, Shard
from ov_model.lake.ledger import FAILED, OK, Report
from ov_model.lake.mixture import MixtureReport
from ov_model.lake.stages import MOSAICS, RAW
from ov_model.plots import GOOD, draw_counts

_SAMPLE_ROWS = 5
_FAILURE_ROWS = 10
_CELL = 160
_PREVIEWED = 2
_PLOTS_BYTES = 16 * 1024
_LEDGER_COLUMNS = ("id", "media", "kind", "status", "signal", "bytes")


@dataclass(frozen=True)
class Product:
    """What a step made: its data version and what the UI is told; `work` is among it."""

    data_version: str
    metadata: dict[str, Any]


def report_metadata(
    dataset: Dataset, report: Report, shard: Shard | None, change: str, speeds: Sequence[float] = ()
) -> dict[str, Any]:
    """Metadata of one stage's materialization, of one shard or of the whole dataset.

    Args:
        change: against the last one. speeds: videos per second of earlier runs, oldest first.
    """
    ledger = None if shard is None else dataset.ledger(report.stage, shard)
    metadata: dict[str, Any] = {"work": work_done(report), "change": change}
    if ledger is not None and report.stage == MOSAICS:
        metadata["preview"] = _mosaics_preview(dataset, ledger)
    metadata |= stage_pictures(dataset, report, shard, ledger, speeds)
    metadata |= {
        "rows": report.rows,
        "ok": report.ok + report.passed,
        "failed": report.failed,
        **({"failed by reason": report.reasons} if report.reasons else {}),
        "duplicates or skipped": report.duplicates + report.skipped,
        "signals": report.signals,
        "computed": report.computed,
        "seconds": round(report.seconds, 3),
        SPEED: round(report.computed / report.seconds, 3) if report.seconds else 0.0,
        "bytes": report.bytes,
        "config hash": report.config_hash,
        "ledger": dg.MetadataValue.path(str(_ledger_path(dataset, report))),
        "dagster/row_count" if shard is None else "dagster/partition_row_count": report.rows,
    }
    if report.outputs:
        metadata["dagster/uri"] = str(report.outputs[0])
    if report.stage in (TRAINING_JSONL, TRAIN_JSONL):
        metadata["sample"] = jsonl_table(report.outputs[0])
        if report.stage == TRAIN_JSONL:
            metadata["shards"] = shards_table(dataset)
    elif ledger is None:
        metadata["sample"] = _records_table(dataset)
    else:
        metadata["sample"] = ledger_table(ledger.head(_SAMPLE_ROWS), _LEDGER_COLUMNS)
    if ledger is not None and report.failed:
        failures = ledger.filter(pl.col("status") == FAILED).head(_FAILURE_ROWS)
        metadata["failures"] = ledger_table(failures, ("id", "media", "reason", "detail"))
    if ledger is not None and report.stage == RAW:
        metadata["bytes"] = int(ledger.unique("path")["size"].sum())
    return metadata


def shards_table(dataset: Dataset) -> dg.TableMetadataValue:
    """A row per shard: what failed in which stage first, and why."""
    rows = []
    for shard in dataset.shards:
        ledger = dataset.ledger(TRAINING_JSONL, shard)
        failed = ledger.filter(pl.col("status") == FAILED)
        reasons = failed["reason"].value_counts(sort=True).iter_rows()
        why = ", ".join(f"{count} {reason}" for reason, count in reasons) or "nothing failed"
        rows.append({"shard": shard.key, "rows": ledger.height, "failed": failed.height, "why": why})
    return table(rows)


def work_done(report: Report) -> str:
    """One line on what this run did and what it found done."""
    if report.stage in (RECORDS, TRAIN_JSONL):
        return f"{report.rows} rows read"
    if report.stage == TRAINING_JSONL:
        return f"{report.rows - report.reused} of {report.rows} rows new"
    if not report.computed:
        return f"0 of {report.rows} samples computed"
    return f"{report.rows - report.reused} of {report.rows} samples computed, {report.computed} media read"


def _ledger_path(dataset: Dataset, report: Report) -> Path:
    """The ledger; the table of rows for `records`, the folder of the shards' ledgers for `train_jsonl`."""
    if report.ledger is not None:
        return report.ledger
    return dataset.root / RECORDS / ROWS if report.stage == RECORDS else dataset.root / "ledger"


def mixture_metadata(report: MixtureReport, change: str) -> dict[str, Any]:
    """Metadata of a mixture's materialization; `change`: against the last one."""
    sources = [{"dataset": name, "taken": taken, "of": report.available[name]} for name, taken in report.counts.items()]
    return {
        "work": f"{0 if report.reused else report.rows} of {report.rows} rows written",
        "change": change,
        "rows by dataset": plot(draw_counts(report.counts, "rows of each dataset", GOOD), "rows by dataset"),
        "dagster/row_count": report.rows,
        "dagster/uri": str(report.out),
        "rows": report.rows,
        "sources": table(sources),
        "seconds": round(report.seconds, 3),
        "bytes": report.bytes,
        "config hash": report.config_hash[:16],
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
                    "positions": "positions_thw" in record,
                }
            )
    return table(rows)


def _records_table(dataset: Dataset) -> dg.TableMetadataValue:
    records = islice((record for shard in dataset.shards for record in dataset.records(shard)), _SAMPLE_ROWS)
    return table(
        [
            {"row": r.row, "id": _cell(r.id), "media": _cell(r.media), "kind": r.kind, "error": _cell(r.error or "")}
            for r in records
        ]
    )


def ledger_table(frame: pl.DataFrame, columns: Iterable[str]) -> dg.TableMetadataValue:
    """Columns of a ledger's rows as a table of the UI."""
    rows = frame.select(*columns).iter_rows(named=True)
    return table([{k: v if isinstance(v, int) else _cell(v) for k, v in row.items()} for row in rows])


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows of equal columns as a table of the UI."""
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
    videos = ledger.filter((pl.col("status") == OK) & (pl.col("kind") == "video"))
    for row in videos.unique("content_hash", keep="first", maintain_order=True).iter_rows(named=True):
        outputs = [dataset.root / path for path in row["outputs"]]
        mosaics = tuple(path for path in outputs if path.suffix == ".jpg")
        positions = [path for path in outputs if path.name == POSITIONS]
        if mosaics and positions:
            packs.append(Pack(row["id"], mosaics, positions[0]))
        if len(packs) == _PREVIEWED:
            break
    if not packs:
        return dg.MetadataValue.md("No mosaics in this shard.")
    return dg.MetadataValue.md(preview_markdown(packs, dataset.spec.pack.geometry, BUDGET_BYTES - _PLOTS_BYTES))
