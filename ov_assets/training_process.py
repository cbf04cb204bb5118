"""What a training step runs in a process of its own: `python -m ov_assets.training_process PID`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ov_assets.job_process import run_tasks
from ov_model.errors import TrainingFailed
from ov_model.extras import require
from ov_model.lake.files import write_bytes, write_json

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


if __name__ == "__main__":
    run_tasks({TRAIN: train, LENGTHS: lengths}, worth_a_retry=(TrainingFailed,))
