"""A job in a process of its own: started, followed through a file that grows by lines, and its failure told.

The process is a module of this package run in any Python, `python -m ov_assets.training_process PID`; see
`job_process.py` for its side.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.pipes import Abandoned, Ended, run_process
from ov_model.errors import LockedError, OvError


def run_job(
    context: dg.AssetExecutionContext,
    module: str,
    job: dict[str, Any],
    cwd: Path,
    python: str | None = None,
    on_tick: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a job of a module of this package to its end.

    Args:
        python: interpreter; None is this one.
        on_tick: called while it runs, and once after the end.

    Raises:
        dg.Failure: it failed; with retries where going on from where it was may help.
    """
    command = [python or sys.executable, "-m", module, "{pid}"]
    try:
        ended = run_process(context, command, {"job": job}, cwd, on_tick)
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as error:
        raise dg.Failure("canceled: every process of it has ended", allow_retries=False) from error
    except Abandoned as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except OSError as error:
        raise dg.Failure(f"{command[0]} cannot be run: {error}", allow_retries=False) from error
    if ended.code or not ended.message:
        raise _failure(module, ended)
    return ended


def _failure(module: str, ended: Ended) -> dg.Failure:
    if "error" not in ended.message:
        what = module.rpartition(".")[2].replace("_", " ")
        how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
        return dg.Failure(f"the {what} {how} and reported nothing; its standard error may say why")
    retry = bool(ended.message.get("retry"))
    return dg.Failure(f"{ended.message['error']}: {ended.message['message']}", allow_retries=retry)


def as_failure(error: OvError) -> dg.Failure:
    """The failure of a step that trying again would not mend."""
    return dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False)


def still_locked(context: dg.AssetExecutionContext, error: LockedError) -> dg.Failure:
    """The failure of a step that another process shuts out.

    A retry waits: the lock may be its own, of the machine that it was lost with, until that expires.
    """
    return dg.Failure(f"LockedError: {error}", allow_retries=context.retry_number > 0)


class Observer:
    """An observation and a log line of the newest values that `look` found, at intervals.

    Args:
        look: the newest values since it was last called, None where there are none.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        asset: dg.AssetKey,
        look: Callable[[], dict[str, float | int] | None],
        every: float,
        partition: str | None = None,
    ) -> None:
        self.context, self.asset, self.look, self.every, self.partition = context, asset, look, every, partition
        self.last = -math.inf
        self.waiting: dict[str, float | int] | None = None

    def __call__(self) -> None:
        """Report the newest values, unless the last report is too young."""
        self.waiting = self.look() or self.waiting
        if time.monotonic() - self.last >= self.every:
            self.report()

    def report(self) -> None:
        """Report the newest values, if they are not reported yet."""
        if self.waiting is None:
            return
        told, self.waiting, self.last = self.waiting, None, time.monotonic()
        self.context.log_event(dg.AssetObservation(self.asset, metadata=told, partition=self.partition))
        self.context.log.info(", ".join(f"{name} {value:.5g}" for name, value in told.items()))


class GrowingJsonl:
    """The lines that were added to a JSONL file since the last look; one torn by a kill is left out."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """`offset`: bytes that are known already [default: all that are there]."""
        self.path = path
        self.offset = offset if offset is not None else path.stat().st_size if path.is_file() else 0
        self.rest = b""

    def new(self) -> Iterator[dict[str, Any]]:
        """Added lines in order."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = self.rest + file.read()
            self.offset = file.tell()
        *lines, self.rest = text.split(b"\n")
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue
