"""A process of its own under Dagster Pipes that never outlives its step, however the step ends.

Dagster's own client signals the direct child alone and never kills. Here the child leads a session, which is ended
when the step returns, fails or is canceled; a step that is killed with -9 takes the child along (`die_with_parent`,
which the child must call), and a step whose run worker was killed notices and stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.orphans import run_worker

TICK = 0.5
PATIENCE = 30.0
"""Seconds that a process is given to end its own processes before it is killed; more than `launch` gives its ranks."""


class Abandoned(Exception):
    """The run worker that started this step is gone: nobody waits for its result."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code and the last message that it reported, empty where there is none."""

    code: int
    message: dict[str, Any]


def run_process(
    context: dg.AssetExecutionContext,
    command: Sequence[str],
    extras: dict[str, Any],
    cwd: Path,
    on_tick: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command to its end in a session of its own, calling `on_tick` every TICK seconds and once after the end.

    Its standard output and error are the step's. When this raises, the process and its group are gone.

    Args:
        command: `{pid}` in it stands for this process's id.
        extras: what the process reads with `PipesContext.get_extra`.

    Raises:
        Abandoned: the run worker was killed.
    """
    with _session(context, extras) as session:
        process = subprocess.Popen(
            [part.format(pid=os.getpid()) for part in command],
            cwd=cwd,
            env=os.environ | session.get_bootstrap_env_vars(),
            start_new_session=True,
        )
        try:
            while _still_running(process):
                if _abandoned():
                    raise Abandoned("the run worker of this step is gone; what it started was stopped")
                on_tick()
        finally:
            end_group(process)
    on_tick()
    messages = session.get_custom_messages()
    return Ended(process.returncode, dict(messages[-1]) if messages else {})


@contextmanager
def _session(context: dg.AssetExecutionContext, extras: dict[str, Any]) -> Iterator[dg.PipesSession]:
    opening = dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader(), extras)
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)
            session = stack.enter_context(opening)
        yield session


def end_group(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """End a process that leads a group and all of the group: TERM, then KILL; a second interrupt kills at once."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _still_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(TICK)
    except subprocess.TimeoutExpired:
        return True
    return False


def _abandoned() -> bool:
    worker = run_worker()
    return worker is not None and not worker.is_alive()
