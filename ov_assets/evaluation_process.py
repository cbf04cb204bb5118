"""What an evaluation step runs in a process of its own: `python -m ov_assets.evaluation_process PID`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ov_assets.job_process import run_tasks
from ov_model.errors import EvaluationFailed

EVALUATE = "evaluate"
_PATHS = ("home", "out")


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Score a checkpoint on one benchmark, once for each kind of input."""
    from ov_model.eval.run import EvalConfig
    from ov_model.eval.run import evaluate as score

    values = job["config"] | {name: Path(job["config"][name]) for name in _PATHS}
    scored = {}
    for visual in job["visuals"]:
        (found,) = score(EvalConfig(**values | {"tasks": tuple(values["tasks"]), "visual": visual}))
        scored[visual] = {
            "folder": str(found.folder),
            "data_version": found.data_version,
            "reused": found.reused,
            "rows": [asdict(row) for row in found.rows],
        }
    return {"scored": scored}


if __name__ == "__main__":
    run_tasks({EVALUATE: evaluate}, worth_a_retry=(EvaluationFailed,))
