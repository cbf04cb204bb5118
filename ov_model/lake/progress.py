"""Progress of a long run: a bar on a terminal, log lines elsewhere; both count ok and failed."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from typing_extensions import Self

log = logging.getLogger("ov")
_LOG_SECONDS = 30.0


class Progress:
    """Context manager; call `advance` once for each finished sample. Logs every `log_every` samples or 30 s."""

    def __init__(self, title: str, total: int, log_every: int) -> None:
        self.title, self.total, self.log_every = title, total, max(1, log_every)
        self.ok = self.failed = 0

    def __enter__(self) -> Self:
        self._start = self._logged = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}/s  ok {task.fields[ok]}  failed {task.fields[failed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate="0.0", ok=0, failed=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._log()

    def advance(self, *, ok: bool) -> None:
        """One more sample is finished."""
        self.ok += ok
        self.failed += not ok
        done = self.ok + self.failed
        now = time.monotonic()
        if self._bar is not None:
            rate = f"{done / max(now - self._start, 1e-9):.1f}"
            self._bar.update(self._task, advance=1, rate=rate, ok=self.ok, failed=self.failed)
        elif done % self.log_every == 0 or now - self._logged > _LOG_SECONDS:
            self._log()

    def _log(self) -> None:
        self._logged = time.monotonic()
        done = self.ok + self.failed
        seconds = self._logged - self._start
        rate = done / max(seconds, 1e-9)
        log.info(
            "%s: %d of %d samples, ok %d, failed %d, %.1f s, %.2f samples/s",
            self.title, done, self.total, self.ok, self.failed, seconds, rate,
        )  # fmt: skip


class ByteProgress:
    """Context manager for files that are written: a bar in bytes on a terminal, a log line every 30 s elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, max(total, 1), 0

    def __enter__(self) -> Self:
        self._logged = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """So many bytes more are written; `total` grows where it was an estimate."""
        self.done += count
        self.total = max(self.total, self.done)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self.total)
        elif time.monotonic() - self._logged > _LOG_SECONDS:
            self._logged = time.monotonic()
            log.info("%s: %.1f MB of about %.1f MB", self.title, self.done / 1e6, self.total / 1e6)
