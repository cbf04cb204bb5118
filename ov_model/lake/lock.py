"""One writer per shard: a lock file with owner and heartbeat, taken by the command line and Dagster alike.

Exclusive creation, not flock, so that it holds on network file systems. On this host a lock is its owner's as long as
that process lives, whatever the clock says; one of another host is taken over when its heartbeat is EXPIRY seconds off.
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
from typing import Any

from typing_extensions import Self

from ov_model.errors import LockedError
from ov_model.lake.files import temporary
from ov_model.lake.processes import process_start

HEARTBEAT = 10.0
EXPIRY = 90.0


class ShardLock:
    """Context manager that holds `path` (a `.lock` file) while a shard is written.

    Raises:
        LockedError: on entry, a live process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        owner = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
        while not self._create(json.dumps(owner)):
            self._evict_dead_owner()
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
            raise LockedError(f"{self.path}: taken over by {_describe(owner)}; this run stops without writing")

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
    same_host = owner.get("host") == socket.gethostname()
    if same_host:
        held = process_start(int(owner.get("pid", 0))) == owner.get("started")
        told = "wait for it, or stop it"
    else:
        held = abs(age) < EXPIRY
        told = f"wait for it, or stop it; a lock without a sign of life for {EXPIRY:.0f} s is taken over"
    if held:
        raise LockedError(
            f"{path}: this shard is being written by {_describe(owner)} (last sign of life {age:.0f} s ago); {told}"
        )
    return owner


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _describe(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
