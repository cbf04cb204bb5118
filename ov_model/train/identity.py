"""run.json: what a folder is the run of. It goes on with the same recipe, data and samples a step, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ov_model.errors import UsageError
from ov_model.lake.files import write_bytes, write_json
from ov_model.train.recipe import Recipe, dump_recipe

RUN = "run.json"


def identify(recipe: Recipe, jsonl: Path, data_hash: str, out: Path, world: int) -> dict[str, Any]:
    """Write run.json and recipe.yaml, or find that they are of the same run.

    Args:
        data_hash: SHA-256 of the JSONL.
        world: processes on all nodes.

    Raises:
        UsageError: the folder holds another run; says what differs.
    """
    optim = recipe.optim
    wanted: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "config_hash": recipe.config_hash,
        "data": str(jsonl),
        "data_hash": data_hash,
        "samples_a_step": optim.batch_size * optim.accumulation * world,
    }
    path = out / RUN
    found = json.loads(path.read_bytes()) if path.is_file() else wanted
    same = ("config_hash", "data_hash", "samples_a_step")
    if any(found[name] != wanted[name] for name in same):
        changed = list(_changes(found, wanted)) or ["the version of the training stage"]
        raise UsageError(
            f"{out} holds another run ({'; '.join(changed)}); train into another folder, or begin anew with --fresh"
        )
    write_json(path, wanted)
    write_bytes(out / "recipe.yaml", dump_recipe(recipe).encode())
    return wanted


def _changes(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """What differs, as "optim.max_steps was 6, is 7"."""
    for name in ("data_hash", "samples_a_step"):
        if found[name] != wanted[name]:
            yield f"{name} was {found[name]}, is {wanted[name]}"
    before, now = dict(_flat(found["recipe"])), dict(_flat(wanted["recipe"]))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} was {before.get(name)}, is {now.get(name)}"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
