"""What is done: one row per sample in a Parquet file per stage and shard, and a journal while the shard runs.

Each finished sample is one fsynced line of the journal; `compact` folds it into the Parquet file. Reading takes both
and drops a torn last line, so a run killed at any instant loses at most the samples that were in flight.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
from typing_extensions import Self

from ov_model.errors import SampleError
from ov_model.lake.files import atomic_write, hash_json, remove_temporaries, sync_folder
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.lock import ShardLock, refuse_live_owner

OK, PASSED, FAILED, DUPLICATE, SKIPPED = "ok", "passed", "failed", "duplicate", "skipped"

SCHEMA: dict[str, Any] = {
    "row": pl.Int64,
    "key": pl.String,
    "id": pl.String,
    "media": pl.String,
    "kind": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "path": pl.String,
    "size": pl.Int64,
    "mtime_ns": pl.Int64,
    "content_hash": pl.String,
    "input_hash": pl.String,
    "config_hash": pl.String,
    "stage_version": pl.Int32,
    "media_key": pl.String,
    "signal": pl.String,
    "computed": pl.Boolean,
    "outputs": pl.List(pl.String),
    "output_hash": pl.String,
    "bytes": pl.Int64,
    "facts": pl.String,
    "attempts": pl.Int32,
    "seconds": pl.Float64,
    "host": pl.String,
    "versions": pl.String,
    "finished_at": pl.String,
}
VOLATILE = ("computed", "attempts", "seconds", "host", "versions", "finished_at", "mtime_ns")


@dataclass
class Row:
    """One sample's line in a ledger. See SCHEMA for the columns; `facts` is a JSON text of stage-specific values."""

    row: int
    key: str
    id: str
    media: str
    kind: str
    status: str = OK
    reason: str = ""
    detail: str = ""
    path: str = ""
    size: int = 0
    mtime_ns: int = 0
    content_hash: str = ""
    input_hash: str = ""
    config_hash: str = ""
    stage_version: int = 0
    media_key: str = ""
    signal: str = ""
    computed: bool = False
    outputs: list[str] = field(default_factory=list)
    output_hash: str = ""
    bytes: int = 0
    facts: str = "{}"
    attempts: int = 0
    seconds: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    versions: str = field(default_factory=lambda: library_versions())
    finished_at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="microseconds"))


@cache
def library_versions() -> str:
    """JSON of the versions that can change bytes; recorded, never compared."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("ov-lake", "av", "numpy", "numba", "opencv-python-headless", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return json.dumps(found, sort_keys=True)


def row_error(row: Row) -> SampleError:
    """A failed row's reason as an error again, for the stage that builds on it."""
    error = SampleError(row.detail)
    error.reason = row.reason or row.status
    return error


class Ledger:
    """The ledger of one stage and shard, open for writing: holds the shard's lock while it is entered."""

    def __init__(self, root: Path, stage: str, shard: Shard) -> None:
        """`interrupted` tells, once entered, whether the last run on this shard was cut off."""
        self.root, self.stage, self.shard = root, stage, shard
        self.path = ledger_path(root, stage, shard)
        self.journal = self.path.with_suffix(".journal.jsonl")
        self.lock = ShardLock(self.path.with_suffix(".lock"))
        self._stream: Any = None
        self._fresh: dict[str, Row] = {}
        self._kept: set[str] = set()
        self.interrupted = False

    def __enter__(self) -> Self:
        self.lock.__enter__()
        try:
            remove_temporaries(self.path.parent)
            self._frame = read_ledger(self.path)
            self._index = {key: i for i, key in enumerate(self._frame["key"])}
            self._columns: dict[str, list[Any]] = {}
            self._elsewhere = self._rows_elsewhere()
            self.interrupted = self.journal.exists()
            self._repair_journal()
            self._stream = open(self.journal, "ab")
            sync_folder(self.journal.parent)
        except BaseException:
            self.lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self.journal.exists() and self.journal.stat().st_size == 0:
            self.journal.unlink()
        self.lock.__exit__(kind, value, trace)

    def find(self, key: str) -> Row | None:
        """The row of a sample, from this run or an earlier one, or None."""
        if key in self._fresh:
            return self._fresh[key]
        position = self._index.get(key)
        if position is None:
            return None
        row = self._row(position)
        return None if row.finished_at < self._elsewhere.get(key, "") else row

    def newest(self, key: str) -> str:
        """When a sample was last written by any split of the dataset; empty when never."""
        position = self._index.get(key)
        own = "" if position is None else str(self._frame["finished_at"][position])
        return max(own, self._elsewhere.get(key, ""))

    def previous(self) -> pl.DataFrame:
        """All rows of earlier runs (Parquet and journal)."""
        return self._frame

    def append(self, row: Row) -> None:
        """Record a finished sample; on return it is on disk."""
        self.lock.check()
        self._fresh[row.key] = row
        self._stream.write(json.dumps(asdict(row), ensure_ascii=True).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def keep(self, key: str) -> None:
        """Carry an unchanged row of an earlier run into the next ledger (nothing is written now)."""
        self._kept.add(key)

    def compact(self, *, keep_unseen: bool) -> pl.DataFrame:
        """Write the Parquet file from this run's rows (and, if asked, earlier ones not seen now); end the journal."""
        self.lock.check()
        older = self._frame.filter(~pl.col("key").is_in(list(self._fresh)))
        if not keep_unseen:
            older = older.filter(pl.col("key").is_in(list(self._kept)))
        frame = pl.concat([older, to_frame(self._fresh.values())]).sort("row", "key")
        if not (self.path.exists() and not self.journal_size() and frame.equals(self._frame.sort("row", "key"))):
            with atomic_write(self.path) as stream:
                frame.write_parquet(stream)
        self._stream.truncate(0)
        os.fsync(self._stream.fileno())
        return frame

    def _rows_elsewhere(self) -> dict[str, str]:
        """Key -> time of samples that another split into shards wrote: file names carry no shard, the newest counts.

        Raises:
            LockedError: a shard of another split is being written now.
        """
        newest: dict[str, str] = {}
        for path in self.path.parent.glob(f"{self.stage}.shard*of*.parquet"):
            if not path.stem.endswith(f"of{self.shard.count:02d}"):
                for key, finished_at in read_ledger(path).select("key", "finished_at").iter_rows():
                    newest[key] = max(finished_at, newest.get(key, ""))
        for path in self.path.parent.glob(f"{self.stage}.shard*of*.lock"):
            if not path.stem.endswith(f"of{self.shard.count:02d}"):
                refuse_live_owner(path)
        return newest

    def journal_size(self) -> int:
        """Bytes in the journal."""
        return self.journal.stat().st_size if self.journal.exists() else 0

    def _row(self, position: int) -> Row:
        if not self._columns:
            self._columns = {name: self._frame[name].to_list() for name in SCHEMA}
        return Row(**{name: values[position] for name, values in self._columns.items()})

    def _repair_journal(self) -> None:
        """Cut a torn last line off, so that the next line starts on its own."""
        if not self.journal.exists():
            return
        data = self.journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            with open(self.journal, "rb+") as stream:
                stream.truncate(whole)
                os.fsync(stream.fileno())


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a typed frame."""
    listed = list(rows)
    return pl.DataFrame({name: [getattr(row, name) for row in listed] for name in SCHEMA}, schema=SCHEMA)


def read_ledger(path: Path) -> pl.DataFrame:
    """All rows of a ledger: the Parquet file overlaid with its journal (a torn last line is dropped)."""
    frame = pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=SCHEMA)
    journal = path.with_suffix(".journal.jsonl")
    if not journal.exists():
        return frame
    rows: dict[str, Row] = {}
    for line in journal.read_bytes().split(b"\n")[:-1]:
        row = Row(**json.loads(line))
        rows[row.key] = row
    if rows:
        frame = pl.concat([frame.filter(~pl.col("key").is_in(list(rows))), to_frame(rows.values())])
    return frame


@dataclass(frozen=True)
class Report:
    """What a stage did on a shard. `computed`: media a worker looked at in this run; `reused`: rows already done."""

    stage: str
    rows: int
    ok: int
    passed: int
    failed: int
    duplicates: int
    skipped: int
    reasons: dict[str, int]
    signals: dict[str, int]
    computed: int
    reused: int
    seconds: float
    bytes: int
    config_hash: str
    ledger: Path | None
    data_version: str
    outputs: list[Path] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all usable, 3 some failed, 1 nothing usable."""
        if self.rows and not self.ok + self.passed:
            return 1
        return 3 if self.failed else 0


def summarize(
    frame: pl.DataFrame,
    *,
    stage: str,
    computed: int,
    reused: int,
    seconds: float,
    config_hash: str,
    ledger: Path | None,
    outputs: Iterable[Path] = (),
) -> Report:
    """Count a ledger's rows into a Report; its data version depends on content alone, not on when or where it ran."""
    status = dict(frame["status"].value_counts().iter_rows())
    failed = frame.filter(pl.col("status") == FAILED)
    done = frame.filter(pl.col("status") == OK)
    content = frame.sort("row", "key").select("row", "id", "media", "status", "reason", "output_hash")
    return Report(
        stage=stage,
        rows=frame.height,
        ok=status.get(OK, 0),
        passed=status.get(PASSED, 0),
        failed=status.get(FAILED, 0),
        duplicates=status.get(DUPLICATE, 0),
        skipped=status.get(SKIPPED, 0),
        reasons=dict(sorted(failed["reason"].value_counts().iter_rows())),
        signals=dict(sorted(done.filter(pl.col("signal") != "")["signal"].value_counts().iter_rows())),
        computed=computed,
        reused=reused,
        seconds=seconds,
        bytes=int(done["bytes"].sum()),
        config_hash=config_hash,
        ledger=ledger,
        data_version=hash_json(content.rows())[:16],
        outputs=list(outputs),
    )
