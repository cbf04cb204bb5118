"""Folders that have a ledger, and holding all of it: no run writes there while an operator's tool does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ov_model.lake.dataset import RECORDS
from ov_model.lake.files import remove_temporaries
from ov_model.lake.ledger import COUNTED, Stored
from ov_model.lake.lock import ShardLock
from ov_model.status import LedgerFile, find_ledgers

TRACKED = ("row", "key", "status", "config_hash", "outputs", "finished_at")


@dataclass(frozen=True)
class Root:
    """A dataset in a lake, or the output folder of a stage: what its ledgers' outputs are relative to."""

    path: Path
    ledgers: tuple[LedgerFile, ...]

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def records(self) -> Path | None:
        """The index of a dataset in a lake; None for the output folder of a command."""
        folder = self.path / RECORDS
        return folder if folder.is_dir() else None

    def of(self, stage: str) -> list[LedgerFile]:
        """A stage's ledgers, of every split into shards."""
        return [ledger for ledger in self.ledgers if ledger.stage == stage]

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(ledger.stage for ledger in self.ledgers))


def find_roots(lake: Path) -> list[Root]:
    """Every root at or below a path, by name.

    Raises:
        UsageError: no ledger there.
    """
    roots: dict[Path, list[LedgerFile]] = {}
    for ledger in find_ledgers(lake):
        roots.setdefault(ledger.root, []).append(ledger)
    return [Root(path, tuple(ledgers)) for path, ledgers in roots.items()]


@contextmanager
def held(ledgers: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of ledgers, given by their Parquet files; what killed tools left half-written goes first.

    Raises:
        LockedError: one of them is being written.
    """
    with ExitStack() as stack:
        paths = sorted(set(ledgers))
        for path in paths:
            stack.enter_context(ShardLock(path.with_suffix(".lock")))
        for root in {path.parent.parent for path in paths}:
            for folder in (root, root / "ledger", root / RECORDS, root / "jsonl"):
                remove_temporaries(folder)
        yield


def newest_rows(ledgers: Iterable[LedgerFile], columns: tuple[str, ...] = COUNTED) -> pl.DataFrame:
    """The rows of a stage over all splits, the newest of each sample, with its ledger's name as `shard`."""
    names = tuple(dict.fromkeys((*columns, "key", "finished_at")))
    frames = [Stored(ledger.path).frame(names).with_columns(pl.lit(ledger.shard).alias("shard")) for ledger in ledgers]
    return pl.concat(frames).sort("finished_at", maintain_order=True).unique("key", keep="last", maintain_order=True)


def remove_file(path: Path) -> None:
    """Remove a file and the folder that it leaves empty."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def file_size(path: Path) -> tuple[int, tuple[int, int]] | None:
    """(bytes, identity) of a file; None where there is none."""
    try:
        stat = os.lstat(path)
    except OSError:
        return None
    return stat.st_size, (stat.st_dev, stat.st_ino)
