"""Worker processes: a task that dies, hangs or eats memory costs itself; the others are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import closing

import numpy as np
import pytest

from ov_model.errors import DecodeError
from ov_model.lake.workers import RunOptions, run_tasks, set_deadline


def act(task: str) -> str:
    name, _, rest = task.partition(":")
    if name == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "hang":
        set_deadline(0.3)
        time.sleep(60)
    elif name == "eat":
        np.ones((8 << 30,), np.uint8)
    elif name == "bad":
        raise DecodeError("cannot be read")
    elif name == "bug":
        raise ZeroDivisionError("a defect")
    elif name == "full":
        raise OSError(28, "No space left on device")
    elif name == "once" and not os.path.exists(rest):
        open(rest, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    return task.upper()


def outcomes(tasks: list[str], **options: object) -> dict[str, tuple[object, str | None, int]]:
    run = run_tasks(act, tasks, RunOptions(**{"num_workers": 2, "memory_gb": 3.0, **options}))  # type: ignore[arg-type]
    return {task: (o.value, o.error.reason if o.error else None, o.attempts) for task, o in run}


def test_every_task_ends_with_its_own_outcome() -> None:
    tasks = ["a", "die", "b", "hang", "eat", "bad", "bug", "c"]
    found = outcomes(tasks)
    assert set(found) == set(tasks)
    assert [found[name][0] for name in "abc"] == ["A", "B", "C"]
    assert found["die"] == (None, "crashed", 2)
    assert found["hang"] == (None, "timeout", 2)
    assert found["eat"] == (None, "out_of_memory", 2)
    assert found["bad"] == (None, "decode_error", 1)
    assert found["bug"] == (None, "internal_error", 1)


def test_what_died_once_is_tried_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    task = f"once:{tmp_path / 'flag'}"
    assert outcomes([task, "a"])[task] == (task.upper(), None, 2)


def test_all_workers_killed_at_once_cost_no_task() -> None:
    tasks = [f"task {i}" for i in range(12)]
    found = {}
    for task, outcome in run_tasks(act, tasks, RunOptions(num_workers=2, memory_gb=3.0)):
        if not found:
            for worker in multiprocessing.active_children():
                worker.kill()
            time.sleep(0.5)
        found[task] = outcome
    assert {task: (o.value, o.error) for task, o in found.items()} == {task: (task.upper(), None) for task in tasks}


def test_closing_the_run_ends_the_workers_though_it_is_still_known() -> None:
    with closing(run_tasks(act, [f"task {i}" for i in range(12)], RunOptions(num_workers=2, memory_gb=3.0))) as run:
        next(run)
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []


def test_a_timeout_given_by_the_user_holds() -> None:
    start = time.monotonic()
    assert outcomes(["hang"], timeout=0.2)["hang"][1] == "timeout"
    assert time.monotonic() - start < 30


def test_a_full_disk_ends_the_run_not_the_sample() -> None:
    with pytest.raises(OSError, match="No space left"):
        outcomes(["a", "full"])


def test_without_workers_tasks_run_here() -> None:
    assert outcomes(["a", "bad"], num_workers=0) == {"a": ("A", None, 1), "bad": (None, "decode_error", 1)}
