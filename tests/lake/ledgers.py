"""Ledgers of any size, without the samples."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import FAILED, Row, to_frame


def write_ledgers(root: Path, *, rows: int, shards: int, stage: str = "mosaics") -> None:
    """A stage's ledgers with `rows` samples over `shards` shards, every second one failed."""
    pair = to_frame([Row(0, "a", "a", "a.mp4", "video"), Row(1, "b", "b", "b.mp4", "video", FAILED, "decode_error")])
    count = rows // shards
    for index in range(shards):
        frame = pair[[0, 1] * (count // 2)].with_columns(
            pl.int_range(count).cast(pl.String).alias("key"),
            pl.concat_list([pl.lit(f"images/sample/{i:03d}.jpg") for i in range(9)]).alias("outputs"),
        )
        path = ledger_path(root, stage, Shard(index, shards))
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
