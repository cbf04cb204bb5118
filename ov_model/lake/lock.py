"""One writer per shard: a lock file with owner and heartbeat, taken by the command line and Dagster alike.

Exclusive creation, not flock, so that it holds on network file systems. On this host a lock is its owner's as long as
that process lives, whatever the clock says; one of another host is taken over when its heartbeat is EXPIRY seconds off.
Every holder gets a fencing number higher than any before it, so that what a holder writes after it lost the lock can be
told from what its successor writes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from ov_model.errors import LockedError
from ov_model.lake.files import temporary, write_bytes
from ov_model.lake.processes import process_start

HEARTBEAT = 10.0
EXPIRY = 90.0


class WriterLock(Protocol):
    """Held while a shard is written; `fence` is the holder's number."""

    fence: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def check(self) -> None:
        """Raise LockedError when another process has taken the lock over."""
        ...


class ShardLock:
    """Context manager that holds `path` (a `.lock` file) while a shard is written.

    Args:
        counter: file that counts the holders; `fence` is then this one's number.
    Raises:
        LockedError: on entry, a live process holds it, or the count cannot be read.
    """

    def __init__(self, path: Path, counter: Path | None = None) -> None:
        self.path, self.counter = path, counter
        self.token = uuid.uuid4().hex
        self.fence = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create(json.dumps(this_owner(self.token))):
            self._evict_dead_owner()
        try:
            self.fence = _count(self.counter) if self.counter else 0
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {self.path.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._owner().get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LockedError when another process has taken the lock over (this one was suspended too long)."""
        owner = self._owner()
        if owner.get("token") != self.token:
            raise LockedError(f"{self.path}: taken over by {describe(owner)}; this run stops without writing")

    def _create(self, text: str) -> bool:
        """Create the lock file whole: it appears by link, so no reader sees it empty."""
        temp = temporary(self.path.with_name(f"{self.path.name}.{self.token}"))
        try:
            temp.write_text(text)
            os.link(temp, self.path)
        except FileExistsError:
            return False
        finally:
            temp.unlink(missing_ok=True)
        return True

    def _evict_dead_owner(self) -> None:
        owner = refuse_live_owner(self.path)
        if owner is None:
            return
        grave = temporary(self.path.with_name(f"{self.path.name}.{self.token}.dead"))
        with suppress(FileNotFoundError):
            os.rename(self.path, grave)
            if _read(grave).get("token") != owner.get("token"):
                with suppress(FileExistsError):
                    os.link(grave, self.path)
            grave.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with suppress(OSError):
                if self._owner().get("token") == self.token:
                    os.utime(self.path)

    def _owner(self) -> dict[str, Any]:
        return _read(self.path)


def refuse_live_owner(path: Path) -> dict[str, Any] | None:
    """Raise LockedError when a live process holds the lock file; else its dead owner, None when there is no file."""
    owner = _read(path)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    refuse_if_alive(path, owner, age)
    return owner


def this_owner(token: str) -> dict[str, Any]:
    """What a lock says of its holder: this process."""
    pid = os.getpid()
    return {"token": token, "host": socket.gethostname(), "pid": pid, "started": process_start(pid)}


def refuse_if_alive(name: object, owner: dict[str, Any], age: float) -> None:
    """Raise LockedError when an owner whose last sign of life is `age` seconds old counts as alive."""
    same_host = owner.get("host") == socket.gethostname()
    if same_host:
        held = process_start(int(owner.get("pid", 0))) == owner.get("started")
        told = "wait for it, or stop it"
    else:
        held = abs(age) < EXPIRY
        told = f"wait for it, or stop it; a lock without a sign of life for {EXPIRY:.0f} s is taken over"
    if held:
        raise LockedError(
            f"{name}: this shard is being written by {describe(owner)} (last sign of life {age:.0f} s ago); {told}"
        )


def _count(path: Path) -> int:
    try:
        number = int(path.read_text()) + 1
    except FileNotFoundError:
        number = 1
    except ValueError as error:
        raise LockedError(f"{path}: does not hold a number ({error}); restore it, or write a higher one") from error
    write_bytes(path, str(number).encode())
    return number


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def describe(owner: dict[str, Any]) -> str:
    """A lock's owner in words."""
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
