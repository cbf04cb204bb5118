"""Move finished samples to another number of shards: `ov reshard LAKE/DATASET 16`. Nothing is decoded or moved on disk.

Ledger rows, index and JSONL parts are dealt out anew; files stay where the rows say, so train.jsonl and what was made
from it stay as they are. New ledgers are complete before an old one goes: killed at any instant, the same command
goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ov_model.errors import LockedError, UsageError
from ov_model.lake.dataset import TRAINING_JSONL
from ov_model.lake.files import atomic_write
from ov_model.lake.index import ROWS, index_path
from ov_model.lake.jsonl import write_lines
from ov_model.lake.layout import Shard, ledger_path, shard_of
from ov_model.lake.ledger import OK, PASSED, SCHEMA, read_ledger, rewrite_ledger
from ov_model.lake.lock import refuse_live_owner
from ov_model.lake.progress import Progress
from ov_model.lake.records import parse_record, read_values
from ov_model.lake.stages import ASSETS
from ov_model.ops.roots import Root, find_roots, held, newest_rows


@dataclass(frozen=True)
class Resharded:
    """What one root became: rows by stage, shards before and now."""

    root: Path
    before: tuple[int, ...]
    shards: int
    rows: dict[str, int]


def reshard(lake: Path, shards: int) -> Resharded:
    """Deal a dataset's (or output folder's) finished samples out to `shards` shards.

    Raises:
        UsageError: fewer than one shard, no ledger, or several roots. LockedError: a stage is at work there.
    """
    if shards < 1:
        raise UsageError(f"{shards} shards: at least 1 is needed")
    roots = find_roots(lake)
    if len(roots) != 1:
        raise UsageError(f"{lake}: {len(roots)} datasets; give one of them, {', '.join(r.name for r in roots[:3])}, …")
    (root,) = roots
    targets = [Shard(index, shards) for index in range(shards)]
    before = {Shard.parse(ledger.shard).count for ledger in root.ledgers}
    planned = [ledger_path(root.path, stage, shard) for stage in root.stages for shard in targets]
    with held([*planned, *(ledger.path for ledger in root.ledgers)]):
        if root.records is not None:
            _deal_index(root.records, targets)
        rows = {}
        with Progress(f"reshard {root.name}", len(root.stages), 1) as progress:
            for stage in root.stages:
                rows[stage] = _deal_ledger(root, stage, targets)
                progress.advance(ok=True)
        if TRAINING_JSONL in root.stages:
            _deal_jsonl(root, targets)
        _remove_older(root, shards)
    return Resharded(root.path, tuple(sorted(before)), shards, rows)


def placement(root: Root, shards: int) -> Callable[[tuple[str, str, str, int]], int]:
    """(key, id, media, row) -> shard, as whoever works on this root deals samples out."""
    if root.records is not None:
        return lambda sample: shard_of(sample[2] or f"|{sample[1]}|{sample[3]}", shards)
    if ASSETS in root.stages:
        return lambda sample: sample[3] % shards
    return lambda sample: shard_of(sample[0], shards)


def _deal_ledger(root: Root, stage: str, targets: list[Shard]) -> int:
    """Write the new ledgers of a stage from the newest row of each sample, whatever split it lies in."""
    frame = newest_rows(root.of(stage), tuple(SCHEMA))
    place = placement(root, len(targets))
    index = [place(sample) for sample in frame.select("key", "id", "media", "row").iter_rows()]
    frame = frame.drop("shard").with_columns(pl.Series("place", index, dtype=pl.Int64))
    for shard in targets:
        part = frame.filter(place=shard.index).drop("place")
        path = ledger_path(root.path, stage, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        rewrite_ledger(path, part)
    return frame.height


def _deal_index(folder: Path, targets: list[Shard]) -> None:
    """Write the new index files, unless they are there: they come first, and all at once as far as a reader sees."""
    rows = pl.read_parquet(folder / ROWS)
    lines: dict[int, tuple[int, bytes]] = {}
    for path in sorted(folder.glob("shard*of*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
        for line, value in zip(path.read_bytes().splitlines(keepends=True), read_values(path), strict=True):
            record = parse_record(value, 0, own_index=True)
            where = shard_of(record.media or f"|{record.id}|{record.row}", len(targets))
            lines[record.row] = (where, line)
    current = set(rows["row"].to_list())
    for shard in targets:
        own = [lines[row][1] for row in sorted(lines) if lines[row][0] == shard.index and row in current]
        write_lines(index_path(folder, shard), own)
    places = pl.col("row").replace_strict({row: where for row, (where, _) in lines.items()}, default=pl.col("shard"))
    with atomic_write(folder / ROWS) as stream:
        rows.with_columns(places.cast(pl.Int64).alias("shard")).write_parquet(stream)


def _deal_jsonl(root: Root, targets: list[Shard]) -> None:
    """Deal the parts of the training JSONL; where an old one is not up to date, the next run writes the new ones."""
    lines: dict[int, bytes] = {}
    for ledger in root.of(TRAINING_JSONL):
        part = root.path / "jsonl" / f"{ledger.shard}.jsonl"
        rows = read_ledger(ledger.path, ("row", "key", "status")).sort("row", "key")
        numbers = rows.filter(pl.col("status").is_in([OK, PASSED]))["row"].to_list()
        found = part.read_bytes().splitlines(keepends=True) if part.exists() else []
        if len(found) == len(numbers):
            lines |= dict(zip(numbers, found, strict=True))
    for shard in targets:
        rows = read_ledger(ledger_path(root.path, TRAINING_JSONL, shard), ("row", "key", "status")).sort("row", "key")
        numbers = rows.filter(pl.col("status").is_in([OK, PASSED]))["row"].to_list()
        if all(number in lines for number in numbers):
            write_lines(root.path / "jsonl" / f"{shard.key}.jsonl", [lines[number] for number in numbers])


def _remove_older(root: Root, shards: int) -> None:
    """Remove what belongs to other splits: parts, index, and last the ledgers."""
    ending = f"of{shards:02d}"
    folders = [root.path / "jsonl", *([root.records] if root.records else [])]
    for folder in folders:
        for path in folder.glob("shard*of*.jsonl"):
            if not path.stem.endswith(ending):
                path.unlink()
    for path in (root.path / "ledger").glob("*.shard*of*.parquet"):
        if not path.stem.endswith(ending):
            path.with_suffix(".journal.jsonl").unlink(missing_ok=True)
            path.unlink()
    for path in (root.path / "ledger").glob("*.shard*of*.journal.jsonl"):
        if not path.name.removesuffix(".journal.jsonl").endswith(ending):
            path.unlink()
    for path in (root.path / "ledger").glob("*.shard*of*.lock"):
        with suppress(LockedError):
            refuse_live_owner(path)
            path.unlink(missing_ok=True)
