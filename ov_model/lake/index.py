"""The lake's index of a raw dataset: per-shard JSONL with row numbers that are assigned once and never change.

A record keeps its number when others come or go: it is recognized by its content, else (edited) by id and media.
Removed rows leave gaps, new ones take the next number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.lake.files import atomic_write, hash_file
from ov_model.lake.layout import Shard, shard_of
from ov_model.lake.ledger import write_parquet
from ov_model.lake.records import BAD_FIELD, ROW_FIELD, Record, read_records
from ov_model.lake.tombstones import Tombstones

ROWS = "rows.parquet"


def index_path(folder: Path, shard: Shard) -> Path:
    """A shard's index file."""
    return folder / f"{shard.key}.jsonl"


def build_index(dataset_path: Path, folder: Path, num_shards: int) -> pl.DataFrame:
    """Stream a raw dataset into per-shard index files; returns its rows (row, content, identity, kind, shard).

    Records of one medium share a shard, so that each medium is decoded once. An index file whose content did not change
    keeps its time. What `ov remove` took out stays out, and is not among the rows returned; its number stays taken.
    """
    tombstones = Tombstones.read(folder)
    rows = _assign_rows(_survey(dataset_path), folder / ROWS, tombstones)
    numbers = rows.sort("position")["row"].to_list()
    shards: list[int] = []
    removed: list[bool] = []
    with ExitStack() as stack:
        parts = [folder / f"{Shard(i, num_shards).key}.jsonl.part" for i in range(num_shards)]
        streams = [stack.enter_context(atomic_write(part)) for part in parts]
        for record, row in zip(read_records(dataset_path), numbers, strict=True):
            shard = shard_of(record.media or f"|{record.id}|{row}", num_shards)
            shards.append(shard)
            removed.append(tombstones.cover(record, row))
            if not removed[-1]:
                streams[shard].write(_line(record, row))
    for i, part in enumerate(parts):
        _sort_by_row(part)
        target = index_path(folder, Shard(i, num_shards))
        if target.exists() and hash_file(target) == hash_file(part):
            part.unlink()
        else:
            part.replace(target)
    added = [pl.Series("shard", shards, dtype=pl.Int64), pl.Series("removed", removed, dtype=pl.Boolean)]
    rows = rows.sort("position").with_columns(added).sort("row")
    stored = rows.select("row", "content", "occurrence", "identity", "nth", "shard")
    previous = folder / ROWS
    if not (previous.exists() and pl.read_parquet(previous).equals(stored)):
        write_parquet(previous, stored)
    return rows.filter(~pl.col("removed")).drop("removed")


def read_index(folder: Path, shard: Shard) -> Iterator[Record]:
    """A shard's records, in row order."""
    yield from read_records(index_path(folder, shard), own_index=True)


def _sort_by_row(part: Path) -> None:
    """Put an index file's lines in row order; they come in the raw dataset's, which differs once it was edited."""
    lines = part.read_bytes().splitlines(keepends=True)
    rows = [json.loads(line)[ROW_FIELD] for line in lines]
    if rows != sorted(rows):
        part.write_bytes(b"".join(line for _, line in sorted(zip(rows, lines, strict=True))))


def _survey(dataset_path: Path) -> pl.DataFrame:
    """What identifies each record, in file order."""
    content: list[str] = []
    identity: list[str] = []
    kinds: list[str] = []
    for record in read_records(dataset_path):
        content.append(record.content_hash[:32])
        identity.append(f"{record.id}|{record.media}|{record.kind}")
        kinds.append(record.kind)
    schema = {"content": pl.String, "identity": pl.String, "kind": pl.String}
    frame = pl.DataFrame({"content": content, "identity": identity, "kind": kinds}, schema=schema)
    return frame.with_row_index("position").with_columns(
        pl.col("position").cast(pl.Int64),
        pl.int_range(pl.len()).over("content").alias("occurrence"),
    )


def _assign_rows(survey: pl.DataFrame, previous: Path, tombstones: Tombstones) -> pl.DataFrame:
    """Give each surveyed record its old number, or the next free one."""
    if not previous.exists() and not tombstones.records:
        numbered = survey.with_columns(pl.col("position").alias("row"))
        return numbered.with_columns(pl.int_range(pl.len()).over("identity").alias("nth"))
    known = {"row": pl.Int64, "content": pl.String, "occurrence": pl.Int64, "identity": pl.String}
    stones = [asdict(stone) for stone in tombstones.records.values()]
    old = pl.DataFrame({name: [stone[name] for stone in stones] for name in known}, schema=known)
    if previous.exists():
        stored = pl.read_parquet(previous, columns=list(known)).select(pl.col(name).cast(known[name]) for name in known)
        old = pl.concat([stored, old.filter(~pl.col("row").is_in(stored["row"].to_list()))])
    exact = survey.join(old.select("content", "occurrence", "row"), on=["content", "occurrence"], how="left")
    taken = exact["row"].drop_nulls()
    edited = exact.filter(pl.col("row").is_null()).drop("row")
    edited = edited.with_columns(pl.int_range(pl.len()).over("identity").alias("nth"))
    free = old.filter(~pl.col("row").is_in(taken.implode())).sort("row")
    free = free.with_columns(pl.int_range(pl.len()).over("identity").alias("nth"))
    edited = edited.join(free.select("identity", "nth", "row"), on=["identity", "nth"], how="left").sort("position")
    largest = old["row"].max()
    start = 0 if largest is None else int(str(largest)) + 1
    is_new = pl.col("row").is_null()
    edited = edited.with_columns(
        pl.when(is_new).then(start + is_new.cast(pl.Int64).cum_sum() - 1).otherwise(pl.col("row")).alias("row")
    )
    columns = ["position", "content", "identity", "kind", "occurrence", "row"]
    joined = pl.concat([exact.filter(pl.col("row").is_not_null()).select(columns), edited.select(columns)])
    return joined.sort("position").with_columns(pl.int_range(pl.len()).over("identity").alias("nth"))


def _line(record: Record, row: int) -> bytes:
    data: dict[str, Any]
    if isinstance(record.data, dict):
        data = {ROW_FIELD: row, **{name: value for name, value in record.data.items() if name != ROW_FIELD}}
    else:
        data = {ROW_FIELD: row, BAD_FIELD: {"data": record.data, "message": str(record.error)}}
    return json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
