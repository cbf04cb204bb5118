"""What a training step runs in a process of its own, in whichever Python: `python -m ov_assets.training_process PID`.

PID is the process that it must not outlive. The job comes through Dagster Pipes; the last message back is what was
made, or why not: {"error", "message"}. Of Dagster it needs the package dagster-pipes alone.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from ov_model.errors import OvError, TrainingFailed
from ov_model.extras import require
from ov_model.lake.files import write_bytes, write_json
from ov_model.train.processes import die_with_parent

TRAIN, LENGTHS = "train", "lengths"
HISTOGRAM, LENGTHS_JSON = "lengths.png", "lengths.json"


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train a recipe to its end, from the last checkpoint where there is one."""
    from ov_model.train.launch import Nodes, launch
    from ov_model.train.recipe import parse_recipe

    recipe = parse_recipe(job["recipe"], job["recipe"]["name"])
    return {"export": str(launch(recipe, Path(job["jsonl"]), Path(job["out"]), Nodes(job["processes"])))}


def lengths(job: dict[str, Any]) -> dict[str, Any]:
    """Measure every row under a recipe, and draw the histogram; rows that cannot be used are counted."""
    require("train", "torch", "transformers")
    from ov_model.train.lengths import draw_lengths, report_lengths
    from ov_model.train.recipe import parse_recipe
    from ov_model.train.run import prepare

    recipe, out = parse_recipe(job["recipe"], job["recipe"]["name"]), Path(job["out"])
    counted = replace(recipe, data=replace(recipe.data, on_bad_sample="skip"))
    _, _, found = prepare(counted, Path(job["jsonl"]), out)
    report = report_lengths(found, recipe.data.max_length)
    write_bytes(out / HISTOGRAM, draw_lengths(report))
    write_json(out / LENGTHS_JSON, asdict(report))
    return asdict(report)


def _run(pipes: PipesContext) -> int:
    job: dict[str, Any] = pipes.get_extra("job")
    try:
        pipes.report_custom_message({TRAIN: train, LENGTHS: lengths}[job["task"]](job))
    except OvError as error:
        print(error, file=sys.stderr)
        pipes.report_custom_message({"error": type(error).__name__, "message": str(error)})
        return 1 if isinstance(error, TrainingFailed) else 2
    return 0


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    with open_dagster_pipes() as pipes:
        code = _run(pipes)
    sys.exit(code)


if __name__ == "__main__":
    main()
