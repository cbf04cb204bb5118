"""The training JSONL: one row per usable record, in input order, written as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from ov_model.lake.conversations import to_images
from ov_model.lake.files import atomic_write, hash_file, remove_temporaries
from ov_model.lake.layout import POSITIONS
from ov_model.lake.ledger import OK, PASSED
from ov_model.lake.records import Record


@dataclass(frozen=True)
class JsonlSummary:
    """rows written; left_out: records without a row, by the reason the ledger gives."""

    path: Path
    rows: int
    left_out: dict[str, int]
    bytes: int
    content_hash: str


def training_row(
    record: Record,
    outputs: list[str],
    num_images: int,
    render: Callable[[str], str],
    *,
    positions: bool = True,
) -> dict[str, Any]:
    """One row: id, conversations, image(s), positions_thw. Image and text records pass through.

    Args:
        outputs: the sample's mosaic and position files; empty for image and text records.
        render: how a path is written.
    """
    row: dict[str, Any] = {"id": record.data["id"], "conversations": record.data["conversations"]}
    if record.kind == "image":
        images = [render(image) for image in record.images]
        row["image"] = images if isinstance(record.data["image"], list) else images[0]
    if record.kind != "video":
        return row
    mosaics = [output for output in outputs if not output.endswith(POSITIONS)]
    if any(PurePosixPath(output).parent.name == "patches" for output in mosaics):
        row["video"] = record.media
    else:
        row["conversations"] = to_images(record, num_images)
        row["image"] = [render(output) for output in mosaics]
    found = [render(output) for output in outputs if output.endswith(POSITIONS)]
    if positions and found:
        row["positions_thw"] = found[0]
    return row


def write_training_jsonl(
    path: Path,
    records: Iterable[Record],
    ledger: pl.DataFrame,
    make_row: Callable[[Record, list[str]], dict[str, Any]],
) -> JsonlSummary:
    """Write the rows of the records that the ledger calls ok or passed; an unchanged file keeps its time."""
    known = {
        key: (status, reason, outputs)
        for key, status, reason, outputs in ledger.select("key", "status", "reason", "outputs").iter_rows()
    }
    rows = 0
    left_out: dict[str, int] = {}

    def lines() -> Iterable[bytes]:
        nonlocal rows
        for record in records:
            status, reason, outputs = known.get(record.key, ("missing", "not_processed", []))
            if status in (OK, PASSED):
                rows += 1
                yield (
                    json.dumps(make_row(record, outputs), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
                )
            else:
                left_out[reason or status] = left_out.get(reason or status, 0) + 1

    write_lines(path, lines())
    return JsonlSummary(path, rows, left_out, path.stat().st_size, hash_file(path))


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines atomically; what a killed writer left beside the file is removed."""
    if path.parent.is_dir():
        remove_temporaries(path.parent)
    with atomic_write(path) as stream:
        for line in lines:
            stream.write(line)
