"""The ledger of a root behind a URL: the local one's rules where nothing can be appended to, locked or renamed.

    ledger/visidx.shard00of01.parquet                         what is done
    ledger/visidx.shard00of01.journal/00000007-00000003.jsonl finished samples: {fencing number}-{n}, written once each
    ledger/visidx.shard00of01.locks/00000007                  who writes; the highest number counts, and stays

A writer takes the lock by creating the next number, which the storage grants to one alone. It then begins its journal
with a segment of all lines that count so far, and from then on only segments of its own number count: whatever a writer
that lost its lock still sends bears a lower one. An object appears whole or not at all, so no line is ever torn.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
from typing_extensions import Self

from ov_model.errors import LockedError
from ov_model.lake.files import write_bytes
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import Ledger, Row
from ov_model.lake.lock import HEARTBEAT, describe, refuse_if_alive, this_owner
from ov_model.lake.progress import log
from ov_model.lake.store import LocalStore, RemoteStore, Store
from ov_model.lake.urls import ObjectState, StorageError

_FLUSH_SECONDS, _FLUSH_LINES = 1.0, 1000
_FOLD_AT = 256


def open_ledger(store: Store, stage: str, shard: Shard) -> Ledger:
    """The ledger of a stage and shard, to be entered for writing."""
    return RemoteLedger(store, stage, shard) if isinstance(store, RemoteStore) else Ledger(store.local, stage, shard)


def pull_ledger(store: Store, stage: str, shard: Shard) -> Path:
    """The path of a ledger for `read_ledger`, brought up to date; the journal first, as there."""
    if isinstance(store, RemoteStore):
        return _pull(store, f"{stage}.{shard.key}")
    return ledger_path(store.local, stage, shard)


def pull_ledgers(store: Store, stage: str) -> list[Path]:
    """The ledgers of all of a stage's shards that have a Parquet file, for `read_ledger`."""
    if isinstance(store, LocalStore):
        return sorted((store.local / "ledger").glob(f"{stage}.shard*.parquet"))
    names = [name for name in store.names("ledger") if name.startswith(f"{stage}.shard") and name.endswith(".parquet")]
    return [store.pull(f"ledger/{name}") for name in names]


class ObjectLock:
    """Context manager that holds a shard's lock on a remote root: `fence` is the number that it created.

    Raises:
        LockedError: on entry, a live process holds the highest number.
    """

    def __init__(self, store: RemoteStore, folder: str) -> None:
        self.store, self.folder = store, folder
        self.token = uuid.uuid4().hex
        self.fence = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        while True:
            numbers = lock_numbers(self.store, self.folder)
            if numbers:
                refuse_live_holder(self.store, self.folder, numbers[-1])
            self.fence = numbers[-1] + 1 if numbers else 1
            if self.store.create(self._key(self.fence), self._text()):
                if self._holder() == self.fence:
                    break
                self.store.remove(self._key(self.fence))
        self.store.remove_all([self._key(number) for number in numbers])
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {self.folder}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._holder() == self.fence:
            self.store.write_bytes(self._key(self.fence), self._text(released=True))

    def check(self) -> None:
        """Raise LockedError when another process has taken the lock over (this one was suspended too long)."""
        holder = self._holder()
        if holder != self.fence:
            owner = _owner(self.store, self._key(holder))
            name = self.store.url(self.folder)
            raise LockedError(f"{name}: taken over by {describe(owner)}; this run stops without writing")

    def _holder(self) -> int:
        return max(lock_numbers(self.store, self.folder), default=0)

    def _key(self, number: int) -> str:
        return f"{self.folder}/{number:08d}"

    def _text(self, *, released: bool = False) -> bytes:
        return json.dumps({**this_owner(self.token), "beat": time.time(), "released": released}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                if self._holder() == self.fence:
                    self.store.write_bytes(self._key(self.fence), self._text())
            except OSError as error:
                log.warning("%s: no sign of life could be left (%s)", self.folder, error)


def lock_numbers(store: RemoteStore, folder: str) -> list[int]:
    """The fencing numbers that were given, as far as they are kept, in order."""
    return sorted(int(name) for name in store.names(folder) if name.isdigit())


def refuse_live_holder(store: RemoteStore, folder: str, number: int) -> None:
    """Raise LockedError when the holder of a number is alive. Its clock and ours must agree to within EXPIRY."""
    owner = _owner(store, f"{folder}/{number:08d}")
    if owner and not owner.get("released"):
        refuse_if_alive(store.url(folder), owner, time.time() - owner["beat"])


def _owner(store: RemoteStore, key: str) -> dict[str, Any]:
    try:
        return json.loads(store.read_bytes(key))
    except (FileNotFoundError, ValueError):
        return {}


class RemoteLedger(Ledger):
    """A Ledger that works on a copy in the staging folder and sends on what is to last.

    Rows are sent when they are a second old, and at the end: a killed run loses the samples in flight and those of its
    last second, which the next one does again.
    """

    def __init__(self, store: RemoteStore, stage: str, shard: Shard) -> None:
        super().__init__(store.local, stage, shard)
        self.store, self.name = store, f"{stage}.{shard.key}"
        self.lock = ObjectLock(store, f"ledger/{self.name}.locks")
        self._base: ObjectState | None = None
        self._journaled = 0
        self._unsent: list[bytes] = []
        self._sent: list[tuple[str, bytes]] = []
        self._number = 0
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException:
            self._stop.set()
            raise

    def append(self, row: Row) -> None:
        """Record a finished sample: it is sent within a second, and at the latest by `compact`.

        Raises:
            LockedError, StorageError: what was recorded before could not be sent.
        """
        if self._failure is not None:
            raise self._failure
        self._fresh[row.key] = row
        line = self._line(row)
        self._unsent.append(line)
        self._journaled += len(line)
        if len(self._unsent) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Send what is not sent yet."""
        with self._sending:
            lines, self._unsent = self._unsent, []
            if not lines:
                return
            try:
                self.lock.check()
                self._send(b"".join(lines))
            except BaseException:
                self._unsent = lines + self._unsent
                raise

    def journal_size(self) -> int:
        """Bytes of lines that are not in the Parquet file."""
        return self._journaled

    def _fetch(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._look_at_other_splits()
        _pull(self.store, self.name)
        self._base = self.store.state(f"ledger/{self.path.name}")
        data = self.journal.read_bytes() if self.journal.exists() else b""
        self._journaled = len(data)
        self._begin_journal(data)
        self._thread = threading.Thread(target=self._keep_sending, name=f"journal {self.name}", daemon=True)
        self._thread.start()

    def _look_at_other_splits(self) -> None:
        """Fetch the ledgers of other splits into shards, and refuse while one of those is being written."""
        mine = f"of{self.shard.count:02d}"
        for name in self.store.names("ledger"):
            split, _, suffix = name.rpartition(".")
            if split.startswith(f"{self.stage}.shard") and suffix == "parquet" and not split.endswith(mine):
                self.store.pull(f"ledger/{name}")
        for name in self.store.folders("ledger"):
            split, _, suffix = name.rpartition(".")
            if split.startswith(f"{self.stage}.shard") and suffix == "locks" and not split.endswith(mine):
                for number in lock_numbers(self.store, f"ledger/{name}")[-1:]:
                    refuse_live_holder(self.store, f"ledger/{name}", number)

    def _begin_journal(self, data: bytes) -> None:
        """Make the lines that count so far the first segment under this writer's number; the others go."""
        first = self._segment(0)
        self.store.write_bytes(first, data)
        older = [name for name in _segments(self.store, self.name) if f"{_journal(self.name)}/{name}" != first]
        for name in older:
            self.store.remove(f"{_journal(self.name)}/{name}")
        self._number, self._sent = 1, []

    def _segment(self, number: int) -> str:
        return f"{_journal(self.name)}/{self.lock.fence:08d}-{number:08d}.jsonl"

    def _send(self, data: bytes) -> None:
        self.store.write_bytes(self._segment(self._number), data)
        self._sent.append((self._segment(self._number), data))
        self._number += 1
        if len(self._sent) >= _FOLD_AT:
            self.store.write_bytes(self._segment(self._number), b"".join(part for _, part in self._sent))
            for key, _ in self._sent:
                self.store.remove(key)
            self._number, self._sent = self._number + 1, []

    def _keep_sending(self) -> None:
        while not self._stop.wait(_FLUSH_SECONDS):
            try:
                self.flush()
            except Exception as error:
                self._failure = error
                return

    def _write(self, frame: pl.DataFrame) -> pl.DataFrame:
        with self._sending:
            frame = super()._write(frame)
            self._send_parquet(self.path.read_bytes())
            self._unsent, self._journaled = [], 0
            self._begin_journal(b"")
        return frame

    def _send_parquet(self, data: bytes) -> None:
        """Replace the Parquet file that this writer began with: one that a later writer put there stays."""
        key = f"ledger/{self.path.name}"
        while not self.store.replace(key, data, self._base):
            self.lock.check()
            self._base = self.store.state(key)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except (LockedError, StorageError) as error:
            if kind is None:
                raise
            log.warning("%s: the last rows could not be sent (%s)", self.name, error)
        finally:
            super().__exit__(kind, value, trace)


def _journal(name: str) -> str:
    return f"ledger/{name}.journal"


def _segments(store: Store, name: str) -> list[str]:
    return [segment for segment in store.names(_journal(name)) if segment.endswith(".jsonl")]


def _pull(store: RemoteStore, name: str) -> Path:
    """Bring the staging folder's copy of a ledger up to date: the journal that counts, then the Parquet file."""
    path = store.local / "ledger" / f"{name}.parquet"
    while True:
        segments = _segments(store, name)
        newest = segments[-1].partition("-")[0] if segments else ""
        try:
            counted = [segment for segment in segments if segment.startswith(f"{newest}-")]
            data = b"".join(store.read_bytes(f"{_journal(name)}/{segment}") for segment in counted)
            break
        except FileNotFoundError:
            continue
    journal = path.with_suffix(".journal.jsonl")
    if data:
        write_bytes(journal, data)
    else:
        journal.unlink(missing_ok=True)
    return store.pull(f"ledger/{name}.parquet")
