"""What is done: one row per sample in a Parquet file per stage and shard, and a journal while the shard runs.

Each finished sample is one fsynced line of the journal; `compact` folds it into the Parquet file. Reading takes both
and drops a torn last line, so a run killed at any instant loses at most the samples that were in flight. A line carries
its writer's fencing number: once a later writer has written, late lines of one that lost its lock do not count.
"""

from __future__ import annotations

import io
import json
import os
import platform
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import polars as pl
from typing_extensions import Self

from ov_model.errors import SampleError
from ov_model.lake.files import atomic_write, hash_json, remove_temporaries, sync_folder, write_bytes
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.lock import ShardLock, WriterLock, refuse_live_owner

OK, PASSED, FAILED, DUPLICATE, SKIPPED = "ok", "passed", "failed", "duplicate", "skipped"
REFERENCE = "reference"

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
    "etag": pl.String,
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
VOLATILE = ("computed", "attempts", "seconds", "host", "versions", "finished_at", "mtime_ns", "etag")
COUNTED = ("row", "key", "id", "media", "status", "reason", "signal", "config_hash", "output_hash", "bytes")
_COMPARED = ("key", "row", "status", "reason", "detail", "input_hash", "config_hash")
_BLOCK = 1 << 14


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
    etag: str = ""
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


class Stored:
    """The rows of a ledger that an earlier run left: columns are read when they are asked for, values block by block.

    journal: what was in the journal when the ledger was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.journal = path, read_journal(path)
        self._columns: dict[str, pl.Series] = {}
        self._block = -1
        self._values: dict[str, list[Any]] = {}
        self._rows: list[tuple[Any, ...]] = []
        self.positions = {key: i for i, key in enumerate(self.frame(_COMPARED)["key"])}

    def frame(self, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
        """Some columns of all rows."""
        missing = [name for name in columns if name not in self._columns]
        if missing:
            found = _overlay(self.path, self.journal, missing)
            self._columns |= {name: found[name] for name in missing}
        return pl.DataFrame([self._columns[name] for name in columns])

    def value(self, name: str, position: int) -> Any:
        """One value."""
        block, place = divmod(position, _BLOCK)
        values = self._enter(block).get(name)
        if values is None:
            values = self._values[name] = self._slice(name)
        return values[place]

    def compared(self, position: int) -> tuple[Any, ...]:
        """What decides whether a row's sample is done: its _COMPARED."""
        block, place = divmod(position, _BLOCK)
        if block != self._block or not self._rows:
            self._enter(block)
            self._rows = list(zip(*map(self._slice, _COMPARED), strict=True))
        return self._rows[place]

    def _enter(self, block: int) -> dict[str, list[Any]]:
        if block != self._block:
            self._block, self._values, self._rows = block, {}, []
        return self._values

    def _slice(self, name: str) -> list[Any]:
        column = self._columns.get(name)
        column = self.frame((name,))[name] if column is None else column
        return column[self._block * _BLOCK : (self._block + 1) * _BLOCK].to_list()


if TYPE_CHECKING:

    class StoredRow(Row):
        """A row of `Stored`, to be read only."""

        def __init__(self, stored: Stored, position: int) -> None: ...

else:

    class StoredRow:
        __slots__ = ("_position", "_stored", *_COMPARED)

        def __init__(self, stored: Stored, position: int) -> None:
            self._stored, self._position = stored, position
            (
                self.key, self.row, self.status, self.reason, self.detail, self.input_hash, self.config_hash,
            ) = stored.compared(position)  # fmt: skip

        def __getattr__(self, name: str) -> Any:
            if name not in SCHEMA:
                raise AttributeError(name)
            return self._stored.value(name, self._position)


class Ledger:
    """The ledger of one stage and shard, open for writing: holds the shard's lock while it is entered."""

    def __init__(self, root: Path, stage: str, shard: Shard) -> None:
        """`interrupted` tells, once entered, whether the last run on this shard was cut off."""
        self.root, self.stage, self.shard = root, stage, shard
        self.path = ledger_path(root, stage, shard)
        self.journal = self.path.with_suffix(".journal.jsonl")
        self.lock: WriterLock = ShardLock(self.path.with_suffix(".lock"), self.path.with_suffix(".fence"))
        self._stream: Any = None
        self._fresh: dict[str, Row] = {}
        self._kept: set[str] = set()
        self.interrupted = False

    def __enter__(self) -> Self:
        self.lock.__enter__()
        try:
            self._fetch()
            remove_temporaries(self.path.parent)
            self._stored = Stored(self.path)
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
        try:
            with suppress(OSError) if kind else nullcontext():
                self._stream.close()
            if kind is None and self.journal.exists() and self.journal.stat().st_size == 0:
                self.journal.unlink()
        finally:
            self.lock.__exit__(kind, value, trace)

    def _fetch(self) -> None:
        """Bring `path` and its neighbors up to date before they are read: here, nothing."""

    def find(self, key: str) -> Row | None:
        """The row of a sample, from this run or an earlier one, or None."""
        if key in self._fresh:
            return self._fresh[key]
        position = self._stored.positions.get(key)
        if position is None:
            return None
        row = StoredRow(self._stored, position)
        return None if self._elsewhere and row.finished_at < self._elsewhere.get(key, "") else row

    def newest(self, key: str) -> str:
        """When a sample was last written by any split of the dataset; empty when never."""
        position = self._stored.positions.get(key)
        own = "" if position is None else str(self._stored.value("finished_at", position))
        return max(own, self._elsewhere.get(key, ""))

    def previous(self, *columns: str) -> pl.DataFrame:
        """Columns (none: all) of the rows of earlier runs (Parquet and journal)."""
        return self._stored.frame(columns or tuple(SCHEMA))

    def append(self, row: Row) -> None:
        """Record a finished sample; on return it is on disk. Its time is later than any that the sample had."""
        self.lock.check()
        newest = self.newest(row.key)
        if row.finished_at <= newest:  # the clock was set back
            later = datetime.fromisoformat(newest) + timedelta(microseconds=1)
            row.finished_at = later.isoformat(timespec="microseconds")
        self._fresh[row.key] = row
        self._stream.write(self._line(row))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _line(self, row: Row) -> bytes:
        return json.dumps({"fence": self.lock.fence, **asdict(row)}, ensure_ascii=True).encode() + b"\n"

    def keep(self, key: str) -> None:
        """Carry an unchanged row of an earlier run into the next ledger (nothing is written now)."""
        self._kept.add(key)

    def compact(self, *, keep_unseen: bool, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
        """Write the Parquet file from this run's rows (and, if asked, earlier ones not seen now); end the journal.

        Returns:
            these columns of all rows.
        """
        self.lock.check()
        known = self._stored.positions.keys()
        if self.path.exists() and not self.journal_size() and (keep_unseen or known <= self._kept):
            return self._stored.frame(tuple(dict.fromkeys(("row", "key", *columns)))).sort("row", "key").select(columns)
        older = self._stored.frame().filter(~pl.col("key").is_in(list(self._fresh)))
        if not keep_unseen:
            older = older.filter(pl.col("key").is_in(list(self._kept)))
        return self._write(pl.concat([older, to_frame(self._fresh.values())])).select(columns)

    def _write(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = frame.sort("row", "key")
        write_parquet(self.path, frame, self.lock.check)
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
                for key, finished_at in read_ledger(path, ("key", "finished_at")).iter_rows():
                    newest[key] = max(finished_at, newest.get(key, ""))
        for path in self.path.parent.glob(f"{self.stage}.shard*of*.lock"):
            if not path.stem.endswith(f"of{self.shard.count:02d}"):
                refuse_live_owner(path)
        return newest

    def journal_size(self) -> int:
        """Bytes in the journal."""
        return self.journal.stat().st_size if self.journal.exists() else 0

    def _repair_journal(self) -> None:
        """Put the whole lines of a journal that was left into a new file under its name.

        A torn last line is gone, and a writer that lost its lock but has the journal open writes into a file without a
        name.
        """
        if self.journal.exists():
            data = self.journal.read_bytes()
            write_bytes(self.journal, data[: data.rfind(b"\n") + 1])


def write_parquet(path: Path, frame: pl.DataFrame, check: Callable[[], None] | None = None) -> None:
    """Write a frame as Parquet atomically; `check` has the last word before it takes its name."""
    buffer = io.BytesIO()  # polars hides in errors of its own that a disk is full
    frame.write_parquet(buffer)
    with atomic_write(path) as stream:
        stream.write(buffer.getbuffer())
        if check is not None:
            check()


def rewrite_ledger(path: Path, frame: pl.DataFrame) -> None:
    """Make `frame` all that a ledger holds; the caller holds its lock.

    The journal is folded in first, so that no kill in between brings a row back.
    """
    journal = path.with_suffix(".journal.jsonl")
    frames = [read_ledger(path)] if journal.exists() else []
    for rows in [*frames, frame]:
        write_parquet(path, rows.select(list(SCHEMA)).sort("row", "key"))
        journal.unlink(missing_ok=True)


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a typed frame."""
    listed = list(rows)
    return pl.DataFrame({name: [getattr(row, name) for row in listed] for name in SCHEMA}, schema=SCHEMA)


def read_ledger(path: Path, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
    """Rows of a ledger, some columns or all: the Parquet file overlaid with its journal (a torn last line is dropped).

    The journal is read first: a row compacted meanwhile is seen in both, not in none.
    """
    return _overlay(path, read_journal(path), columns)


def read_journal(path: Path) -> pl.DataFrame:
    """The journal of a ledger: the last line of each sample, without a torn end."""
    try:
        data = path.with_suffix(".journal.jsonl").read_bytes()
    except FileNotFoundError:
        return pl.DataFrame(schema=SCHEMA)
    rows: dict[str, Row] = {}
    newest = 0
    for line in data.split(b"\n")[:-1]:
        values = json.loads(line)
        fence = values.pop("fence", 0)
        if fence >= newest:
            newest = fence
            rows[values["key"]] = Row(**values)
    return to_frame(rows.values())


def _overlay(path: Path, journal: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    names = list(columns)
    if not path.exists():
        return journal.select(names)
    if journal.is_empty():
        return _saved(path, names).select(names)
    saved = _saved(path, list(dict.fromkeys([*names, "key"])))
    older = saved.filter(~pl.col("key").is_in(journal["key"].to_list()))
    return pl.concat([older.select(names), journal.select(names)])


def _saved(path: Path, names: list[str]) -> pl.DataFrame:
    """Columns of a Parquet file; one that it lacks, written before there was the column, is empty."""
    try:
        return pl.read_parquet(path, columns=names)
    except pl.exceptions.ColumnNotFoundError:
        there = pl.read_parquet(path, columns=[name for name in names if name in pl.read_parquet_schema(path)])
        empty = Row(0, "", "", "", "")
        absent = [name for name in names if name not in there.columns]
        return there.with_columns(pl.lit(getattr(empty, name), SCHEMA[name]).alias(name) for name in absent)


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
