"""What a job's own process does, in whichever Python: of Dagster it needs the package dagster-pipes alone.

The job comes through Dagster Pipes; the last message back is what was made, or why not: {"error", "message",
"retry"}. The first argument is the id of the process that it must not outlive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from ov_model.errors import OvError
from ov_model.train.processes import die_with_parent

Task = Callable[[dict[str, Any]], dict[str, Any]]


def run_tasks(tasks: Mapping[str, Task], worth_a_retry: tuple[type[OvError], ...] = ()) -> None:
    """Do the job's task and exit: 0 done, 1 failed in a way that trying again may mend, 2 failed."""
    die_with_parent(int(sys.argv[1]))
    with open_dagster_pipes() as pipes:
        code = _run(pipes, tasks, worth_a_retry)
    sys.exit(code)


def _run(pipes: PipesContext, tasks: Mapping[str, Task], worth_a_retry: tuple[type[OvError], ...]) -> int:
    job: dict[str, Any] = pipes.get_extra("job")
    try:
        pipes.report_custom_message(tasks[job["task"]](job))
    except OvError as error:
        print(error, file=sys.stderr)
        retry = isinstance(error, worth_a_retry)
        pipes.report_custom_message({"error": type(error).__name__, "message": str(error), "retry": retry})
        return 1 if retry else 2
    return 0
