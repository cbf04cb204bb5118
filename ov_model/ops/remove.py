"""Take records, or all that use a medium, out of a dataset of the lake: `ov remove LAKE/DATASET ID`.

Their files, JSONL rows, ledger rows and index lines go; a tombstone stays, so that neither number nor record comes
back. The raw file and the media are the user's and stay. Killed in the middle, the same command goes on.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import polars as pl

from ov_model.errors import UsageError
from ov_model.lake.dataset import TRAINING_JSONL
from ov_model.lake.files import atomic_write
from ov_model.lake.index import ROWS, index_path, read_index
from ov_model.lake.layout import Shard, file_identity, ledger_path
from ov_model.lake.ledger import OK, PASSED, read_ledger, rewrite_ledger
from ov_model.lake.records import Record
from ov_model.lake.stages import MOSAICS, RAW, VISIDX
from ov_model.lake.tombstones import Tombstone, Tombstones
from ov_model.ops.roots import Root, file_size, find_roots, held, remove_file

_OURS = (VISIDX, MOSAICS)


@dataclass(frozen=True)
class What:
    """What is to go: records by id or key, media by path as given or as found, or by SHA-256."""

    samples: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    content_hashes: tuple[str, ...] = ()


@dataclass
class Removal:
    """What went, or would go. rows: of ledgers, by stage; lines: of JSONL files, by name; rebuild: files that were not
    up to date and are gone as a whole, to be materialized again."""

    records: list[Record] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    rebuild: list[Path] = field(default_factory=list)


def remove(dataset: Path, what: What, *, dry_run: bool = False) -> Removal:
    """Remove what `what` names; what is gone already is no error.

    Raises:
        UsageError: no dataset of a lake, or nothing there of that name. LockedError: a stage is at work on it.
    """
    root = one_dataset(dataset)
    with nullcontext() if dry_run else held(_all_ledgers(root)):
        return _Remover(root, what).run(dry_run=dry_run)


def restore(dataset: Path, what: What) -> list[Tombstone]:
    """Take tombstones back: with the next `records`, what the raw file still has comes back under its old number.

    Raises:
        UsageError: none of that name.
    """
    root = one_dataset(dataset)
    folder = _records(root)
    stones = Tombstones.read(folder)
    wanted = {*what.samples, *what.media}
    taken = [
        stone
        for stone in (*stones.records.values(), *stones.media.values())
        if {stone.id, stone.key, stone.media} & wanted
    ]
    if not taken:
        raise UsageError(f"{dataset}: no tombstone of {', '.join(sorted(wanted)) or 'nothing'}; see {folder}")
    left = [stone for stone in (*stones.records.values(), *stones.media.values()) if stone not in taken]
    Tombstones.of(left).write(folder)
    return taken


def one_dataset(path: Path) -> Root:
    """The dataset in a lake at a path.

    Raises:
        UsageError: none, or several.
    """
    roots = [root for root in find_roots(path) if root.records is not None]
    if len(roots) != 1:
        found = f"{len(roots)} datasets" if roots else "no dataset with an index (records/)"
        raise UsageError(f"{path}: {found} here; give the folder of one dataset in a lake, LAKE/DATASET")
    return roots[0]


def _records(root: Root) -> Path:
    assert root.records is not None
    return root.records


def _all_ledgers(root: Root) -> list[Path]:
    """Of every stage and shard, also those that have yet to run."""
    shards = [Shard.parse(path.stem) for path in _records(root).glob("shard*of*.jsonl")]
    planned = [ledger_path(root.path, stage, shard) for stage in (RAW, *_OURS, TRAINING_JSONL) for shard in shards]
    return [*planned, *(ledger.path for ledger in root.ledgers)]


class _Remover:
    def __init__(self, root: Root, what: What) -> None:
        self.root, self.what, self.folder = root, what, _records(root)
        self.shards = sorted(Shard.parse(path.stem) for path in self.folder.glob("shard*of*.jsonl"))
        self.done = Removal()

    def run(self, *, dry_run: bool) -> Removal:
        stones = Tombstones.read(self.folder)
        gone_media = self._media(stones)
        found = self._find(gone_media, stones)
        keys = {record.key for record in found} | {
            stone.key
            for stone in stones.records.values()
            if self._named(stone.id, stone.key) or stone.media in gone_media
        }
        if not keys and not gone_media:
            names = ", ".join((*self.what.samples, *self.what.media, *self.what.content_hashes)) or "nothing"
            raise UsageError(
                f"{self.root.path}: nothing is named {names}; `ov status` and the index list what there is"
            )
        self.done.records = found
        self.done.media = sorted(gone_media)
        self.done.files = self._files(keys)
        sizes = [file_size(path) for path in self.done.files]
        self.done.bytes = sum(size for size, _ in {found[1]: found for found in sizes if found}.values())
        for ledger in self.root.ledgers:
            count = read_ledger(ledger.path, ("key",)).filter(pl.col("key").is_in(list(keys))).height
            self.done.rows[ledger.stage] = self.done.rows.get(ledger.stage, 0) + count
        if not dry_run:
            self._bury(found, gone_media, stones)
        self._jsonl(keys, dry_run=dry_run)
        if not dry_run:
            self._index(keys)
            for path in self.done.files:
                remove_file(path)
            for ledger in self.root.ledgers:
                rows = read_ledger(ledger.path)
                left = rows.filter(~pl.col("key").is_in(list(keys)))
                if left.height < rows.height:
                    rewrite_ledger(ledger.path, left)
        return self.done

    def _named(self, sample_id: str, key: str) -> bool:
        return sample_id in self.what.samples or key in self.what.samples

    def _media(self, stones: Tombstones) -> set[str]:
        """Paths, as records give them, of the media that are to go."""
        wanted = set(self.what.media)
        if not wanted and not self.what.content_hashes:
            return set()
        found = wanted & stones.media.keys()
        for ledger in self.root.of(RAW):
            rows = read_ledger(ledger.path, ("media", "path", "content_hash"))
            paths = [*wanted, *(os.path.realpath(path) for path in wanted)]
            named = pl.col("media").is_in(list(wanted)) | pl.col("path").is_in(paths)
            hashed = pl.col("content_hash").is_in(list(self.what.content_hashes))
            found |= set(rows.filter(named | hashed)["media"].to_list())
        for shard in self.shards:
            for record in read_index(self.folder, shard):
                found |= wanted.intersection((record.media, *record.images))
        return found - {""}

    def _find(self, media: set[str], stones: Tombstones) -> list[Record]:
        """The records that are to go; those of tombstones too, should a killed command have left them."""
        found = {
            record.key: record
            for shard in self.shards
            for record in read_index(self.folder, shard)
            if self._named(record.id, record.key)
            or not media.isdisjoint((record.media, *record.images))
            or record.row in stones.records
        }
        return list(found.values())

    def _files(self, keys: Collection[str]) -> list[Path]:
        """Files of the removed rows that no other row names, on whatever file system."""
        own: dict[str, str] = {}
        others: set[str] = set()
        for ledger in self.root.ledgers:
            if ledger.stage not in _OURS:
                continue
            rows = read_ledger(ledger.path, ("key", "outputs"))
            mine = pl.col("key").is_in(list(keys))
            own |= {file_identity(name): name for name in rows.filter(mine)["outputs"].explode().drop_nulls()}
            if own:
                others |= {file_identity(name) for name in rows.filter(~mine)["outputs"].explode().drop_nulls()}
        return [self.root.path / name for identity, name in sorted(own.items()) if identity not in others]

    def _bury(self, found: Sequence[Record], media: Collection[str], stones: Tombstones) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        rows = pl.read_parquet(self.folder / ROWS).filter(pl.col("row").is_in([record.row for record in found]))
        known = {row["row"]: (row["content"], row["occurrence"], row["identity"]) for row in rows.iter_rows(named=True)}
        fresh = [
            Tombstone(record.row, record.key, record.id, record.media, *known.get(record.row, ("", 0, "")), now)
            for record in found
        ]
        fresh += [Tombstone(-1, "", "", one, "", 0, "", now) for one in media]
        Tombstones.of([*fresh, *stones.records.values(), *stones.media.values()]).write(self.folder)

    def _index(self, keys: Collection[str]) -> None:
        for shard in self.shards:
            records = list(read_index(self.folder, shard))
            lines = index_path(self.folder, shard).read_bytes().splitlines(keepends=True)
            _keep_lines(index_path(self.folder, shard), lines, [record.key not in keys for record in records])

    def _jsonl(self, keys: Collection[str], *, dry_run: bool) -> None:
        """Drop lines of train.jsonl and its parts; a line is known by its place: they follow the ledger's rows."""
        splits: dict[int, list[list[tuple[int, bool]]]] = {}
        for ledger in self.root.of(TRAINING_JSONL):
            rows = read_ledger(ledger.path, ("row", "key", "status")).sort("row", "key")
            rows = rows.filter(pl.col("status").is_in([OK, PASSED]))
            stays = [(row, key not in keys) for row, key in rows.select("row", "key").iter_rows()]
            splits.setdefault(Shard.parse(ledger.shard).count, []).append(stays)
            part = self.root.path / "jsonl" / f"{ledger.shard}.jsonl"
            self._drop_lines(part, [[stay for _, stay in stays]], dry_run=dry_run)
        merged = [[stay for _, stay in heapq.merge(*parts)] for parts in splits.values()]
        self._drop_lines(self.root.path / "train.jsonl", merged, dry_run=dry_run)

    def _drop_lines(self, path: Path, splits: Sequence[list[bool]], *, dry_run: bool) -> None:
        """Drop lines by the split into shards that the file was made from."""
        if not path.exists() or all(all(stays) for stays in splits):
            return
        lines = path.read_bytes().splitlines(keepends=True)
        stays = next((stays for stays in splits if len(stays) == len(lines)), None)
        if stays is not None:
            self.done.lines[path.name] = len(stays) - sum(stays)
            if not dry_run:
                _keep_lines(path, lines, stays)
        elif not any(sum(stays) == len(lines) for stays in splits):
            self.done.rebuild.append(path)
            if not dry_run:
                path.unlink()


def _keep_lines(path: Path, lines: Sequence[bytes], stays: Sequence[bool]) -> None:
    if not all(stays):
        with atomic_write(path) as stream:
            stream.writelines(line for line, stay in zip(lines, stays, strict=True) if stay)
