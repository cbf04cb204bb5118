"""Steps whose run worker was killed: they end too, instead of holding their shard's lock for a run that is over."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

TICK = 0.5
_CODE_SERVERS = (b"grpc", b"code-server")


def run_worker() -> BaseProcess | None:
    """The process that runs the run, where this is a step's own process that it started; else None.

    With the in-process executor this is the run worker itself; its parent is the code server, whose end or restart
    must not touch the run.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return None
    try:
        command = Path(f"/proc/{parent.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return parent
    return None if any(name in command for name in _CODE_SERVERS) else parent


@contextmanager
def ending_with_run_worker() -> Iterator[None]:
    """End this process at once when its run worker has died within the block; the next run goes on from here."""
    worker = run_worker()
    if worker is None:
        yield
        return
    left = threading.Event()

    def watch() -> None:
        while not left.wait(TICK):
            if not worker.is_alive():
                os._exit(1)

    threading.Thread(target=watch, name="watch the run worker", daemon=True).start()
    try:
        yield
    finally:
        left.set()
