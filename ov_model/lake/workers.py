"""Map a function over tasks in worker processes: a task that crashes, hangs or eats memory costs itself only.

A worker asks the kernel to kill it when its time is up (`set_deadline`): that ends a decoder stuck in native code too.
A task that died or timed out is tried once more, alone, before its failure is final.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from ov_model.errors import InternalError, OutOfMemory, SampleCrashed, SampleError, SampleTimeout, UsageError

T = TypeVar("T")
BASE_TIMEOUT = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class RunOptions:
    """How a shard is processed; nothing here changes any output.

    num_workers: processes (0 runs in this one, without isolation). timeout: seconds a sample may take (None: 60 s + 4 x
    its estimated decode time). memory_gb: address space of a worker. maxtasks_per_child: a worker is replaced after so
    many samples. retry_failed: take only what failed before. overwrite: do everything again. max_samples: stop after so
    many records. log_every: records between log lines.
    """

    num_workers: int = 2
    timeout: float | None = None
    memory_gb: float = 4.0
    maxtasks_per_child: int = 2000
    retry_failed: bool = False
    overwrite: bool = False
    max_samples: int | None = None
    log_every: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("memory_gb", 1), ("maxtasks_per_child", 1), ("max_samples", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{name} is {value}; it must be at least {least}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"timeout is {self.timeout}; it must be more than 0 seconds")


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a value or an error, how often it was tried and the seconds of the last try."""

    value: Any
    error: SampleError | None
    attempts: int
    seconds: float


def run_tasks(
    function: Callable[[T], Any], tasks: Iterable[T], options: RunOptions
) -> Generator[tuple[T, Outcome], None, None]:
    """Yield (task, outcome) as tasks finish. Function and tasks must be picklable; a SampleError is an outcome.

    Closing the generator ends the workers: use it in `contextlib.closing`.

    Any other exception of the function is a defect of ours or of a library: it is recorded as `internal_error`.
    """
    if options.num_workers == 0:
        for task in tasks:
            start = time.perf_counter()
            value, error = _guard(function, task)
            yield task, Outcome(value, error, 1, time.perf_counter() - start)
        return
    again: list[T] = []
    with closing(_run_pool(function, iter(tasks), options, options.num_workers, attempt=1)) as outcomes:
        for task, outcome in outcomes:
            if isinstance(outcome.error, (SampleCrashed, SampleTimeout, OutOfMemory)):
                again.append(task)
            else:
                yield task, outcome
    for task in again:
        yield from _run_pool(function, iter([task]), options, 1, attempt=2)


def set_deadline(seconds: float) -> None:
    """Have the kernel end this worker when `seconds` have passed; 0 takes the deadline back."""
    if multiprocessing.parent_process() is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _run_pool(
    function: Callable[[T], Any], tasks: Iterator[T], options: RunOptions, workers: int, attempt: int
) -> Generator[tuple[T, Outcome], None, None]:
    task = next(tasks, None)
    if task is None:
        return
    pool = _start_pool(workers, options)
    pending: dict[Future[Any], tuple[T, float]] = {}
    broken = False
    try:
        while task is not None or pending:
            if broken:
                _end_pool(pool, pending)
                pool, broken = _start_pool(workers, options), False
            while task is not None and len(pending) < 2 * workers and not broken:
                limit = options.timeout or BASE_TIMEOUT
                try:
                    with _interrupts_held():
                        future = pool.schedule(_work, args=(function, task, limit))
                except RuntimeError:  # all workers died while none had a task: the pool takes no more
                    broken = True
                else:
                    pending[future] = (task, time.perf_counter())
                    task = next(tasks, None)
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                done, scheduled = pending.pop(future)
                broken |= isinstance(future.exception(), BrokenProcessPool)
                yield done, _outcome(future, attempt, scheduled)
        pool.close()
    finally:
        _end_pool(pool, pending)


def _end_pool(pool: ProcessPool, pending: Iterable[Future[Any]]) -> None:
    """Stop it; what it was given and never began is told so."""
    pool.stop()
    pool.join()
    for future in pending:
        if not future.done():
            future.set_exception(BrokenProcessPool())


def _start_pool(workers: int, options: RunOptions) -> ProcessPool:
    return ProcessPool(
        max_workers=workers,
        max_tasks=options.maxtasks_per_child,
        initializer=_start_worker,
        initargs=(options.memory_gb, os.getpid()),
        context=multiprocessing.get_context("spawn"),
    )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started in the block, threads and processes, never sees Ctrl-C; this thread does, after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(future: Future[Any], attempt: int, scheduled: float) -> Outcome:
    elapsed = time.perf_counter() - scheduled
    try:
        value, error, seconds = future.result()
    except ProcessExpired as expired:
        code = expired.exitcode
        if code == -signal.SIGALRM:
            error = SampleTimeout(
                f"took longer than allowed and was ended after {elapsed:.0f} s; raise --timeout to wait"
            )
        elif code == -signal.SIGKILL:
            error = OutOfMemory("its worker was killed by the system, most likely for memory")
        else:
            name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            error = SampleCrashed(f"its worker process died ({name})")
        return Outcome(None, error, attempt, elapsed)
    except BrokenProcessPool:
        return Outcome(None, SampleCrashed("all worker processes were killed at once"), attempt, elapsed)
    return Outcome(value, error, attempt, seconds)


def _work(function: Callable[[T], Any], task: T, limit: float) -> tuple[Any, SampleError | None, float]:
    signal.setitimer(signal.ITIMER_REAL, limit)
    start = time.perf_counter()
    try:
        value, error = _guard(function, task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return value, error, time.perf_counter() - start


def _guard(function: Callable[[T], Any], task: T) -> tuple[Any, SampleError | None]:
    try:
        return function(task), None
    except SampleError as error:
        return None, error
    except MemoryError:
        return None, OutOfMemory("needed more memory than a worker may take; raise --memory_gb")
    except OSError:
        raise
    except Exception as error:
        return None, InternalError(f"{type(error).__name__}: {error}")


def _start_worker(memory_gb: float, parent: int) -> None:
    """Limits of a worker: dies with its parent, one thread a library, bounded address space, alarms that kill."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = int(memory_gb * 2**30)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
