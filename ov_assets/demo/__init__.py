"""The whole way from real clips to a leaderboard, through Dagster: `python -m ov_assets.demo`, or `make demo`.

It writes the demo's raw dataset, materializes `demo` and `demo_mixture` from it, and once more in a small geometry as
`demo_tiny`; trains the run `tiny` on that, lets its checkpoint answer a question about a clip's mosaics, and scores it
on the demo's benchmark. A second run decodes no video, trains no step and asks no question. `--data` ends before the
training. Exit code 0 when all is well, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from ov_assets.components.leaderboard import LEADERBOARD
from ov_assets.definitions import defs
from ov_assets.environment import default_dagster_home, lake_root
from ov_model.demo import write_raw_dataset
from ov_model.errors import OvError
from ov_model.eval.leaderboard import MARKDOWN, PARQUET, as_table
from ov_model.eval.report import print_board
from ov_model.validate import print_validation, validate_jsonl

DATASET, MIXTURE = "demo", "demo_mixture"
TINY, RUN = "demo_tiny", "tiny"
BENCHMARK = "demo"
ASKED = "bunny-action"
SHARDED = ("raw_videos", "visidx", "mosaics", "training_jsonl")
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


class DemoError(Exception):
    """A run of the demo failed; the message says where."""


@dataclass(frozen=True)
class Step:
    """One materialization: which asset, which shard, what it reported."""

    asset: str
    shard: str
    reported: dict[str, Any]


def materialize_data(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[list[Step]]:
    """Materialize both datasets shard by shard, then their merged JSONL and the mixture; the steps of each run.

    Raises:
        DemoError: a run failed.
    """
    for dataset, last in ((DATASET, [[DATASET, "train_jsonl"], [MIXTURE, "mixture"]]), (TINY, [[TINY, "train_jsonl"]])):
        lane = [dg.AssetKey([dataset, stage]) for stage in SHARDED]
        partitions = definitions.resolve_asset_graph().get(lane[0]).partitions_def
        assert partitions is not None
        yield materialize(definitions, instance, [dg.AssetKey([dataset, "records"])])
        for shard in partitions.get_partition_keys():
            yield materialize(definitions, instance, lane, shard)
        yield materialize(definitions, instance, [dg.AssetKey(path) for path in last])


def materialize_run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[list[Step]]:
    """Materialize the training run, one asset after the other.

    Raises:
        DemoError: a run failed.
    """
    for name in ("token_lengths", "projector", "checkpoint"):
        yield materialize(definitions, instance, [dg.AssetKey([RUN, name])])


def materialize_scores(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[list[Step]]:
    """Materialize the demo's benchmark, the checkpoint's score on it, and the leaderboard.

    Raises:
        DemoError: a run failed.
    """
    for path in (["benchmarks", "benchmark_videos"], ["benchmarks", "benchmark_assets"], [RUN, "scores"]):
        yield materialize(definitions, instance, [dg.AssetKey(path)], BENCHMARK)
    yield materialize(definitions, instance, [LEADERBOARD])


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    shard: str | None = None,
) -> list[Step]:
    """Materialize assets in this process.

    Raises:
        DemoError: the run failed.
    """
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config=_QUIET, instance=instance, asset_selection=keys, partition_key=shard, raise_on_error=False
    )
    if not result.success:
        raise DemoError(_why(result, shard))
    return [
        Step(
            asset=event.asset_key.to_user_string() if event.asset_key else "",
            shard=shard or "",
            reported={k: v.value for k, v in event.materialization.metadata.items()},
        )
        for event in result.get_asset_materialization_events()
    ]


def summary(steps: Sequence[Step]) -> Table:
    """A row per materialization; `read`: media hashed or decoded in this run."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("asset", "shard"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "failed", "read", "MB", "s"):
        table.add_column(name, justify="right")
    table.add_column("signals", no_wrap=True)
    for step in steps:
        told = step.reported
        signals = told.get("signals", {}) if step.asset.endswith("visidx") else {}
        table.add_row(
            step.asset,
            step.shard.removeprefix("shard"),
            str(told["rows"]),
            str(told.get("failed", "")),
            str(told["computed"]) if step.asset.endswith(("raw_videos", "visidx", "mosaics")) else "",
            f"{told['bytes'] / 1e6:.2f}",
            f"{told['seconds']:.2f}",
            "\n".join(f"{name} {count}" for name, count in signals.items()),
        )
    return table


def decoded(steps: Sequence[Step]) -> int:
    """Videos that were decoded: `visidx` and `mosaics`, materialized together, share one decode per video."""
    by_shard: dict[tuple[str, str], int] = {}
    for step in steps:
        dataset, _, stage = step.asset.partition("/")
        if stage in ("visidx", "mosaics"):
            place = dataset, step.shard
            by_shard[place] = max(by_shard.get(place, 0), step.reported["computed"])
    return sum(by_shard.values())


def answer(export: Path, jsonl: Path) -> str:
    """What the checkpoint answers about a clip's mosaics, the true answer beside it; in a process of its own.

    Raises:
        DemoError: the model cannot be loaded or does not answer.
    """
    with jsonl.open("rb") as file:
        row = next(number for number, line in enumerate(file) if json.loads(line)["id"] == ASKED)
    command = [sys.executable, "-m", "ov_model.train.answer", str(export), str(jsonl), "--row", str(row)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"{export} does not answer:\n{done.stderr}")
    return done.stdout.strip()


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demo; see the module's description."""
    parser = argparse.ArgumentParser(description="Real clips -> training JSONL -> a tiny model -> its score.")
    parser.add_argument("--data", action="store_true", help="end before the training")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    console = Console()
    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(default_dagster_home())
    try:
        raw = write_raw_dataset(lake_root() / "raw" / DATASET)
        with dg.DagsterInstance.get() as instance:
            definitions = defs()
            well = _make_data(console, definitions, instance, raw)
            if not options.data:
                _make_model(console, definitions, instance)
                _make_scores(console, definitions, instance)
    except (DemoError, OvError) as error:
        console.print(str(error), style="bold red", markup=False, highlight=False)
        return 1
    console.print(f"{time.perf_counter() - started:.1f} s. See it: make ui")
    return 0 if well else 1


def _make_data(console: Console, definitions: dg.Definitions, instance: dg.DagsterInstance, raw: Path) -> bool:
    """Materialize and show the data; whether the JSONLs are valid."""
    steps: list[Step] = []
    for made in materialize_data(definitions, instance):
        steps += made
        where = made[0].asset + (f" … {made[-1].asset} {made[0].shard}" if made[0].shard else "")
        console.print(f"materialized {where}", highlight=False)
    console.print(summary(steps))
    outputs = [step for step in steps if step.asset.endswith(("train_jsonl", "mixture"))]
    made = [(step.asset, Path(step.reported["dagster/uri"])) for step in outputs]
    for name, path in (("raw dataset", raw), ("lake", lake_root()), *made):
        console.print(f"{name:22}{path}", highlight=False, soft_wrap=True)
    valid = True
    for _, path in made:
        validation = validate_jsonl(path)
        print_validation(validation, console)
        valid = valid and validation.ok
    console.print(f"{decoded(steps)} videos decoded")
    return valid


def _make_model(console: Console, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Train the run and ask its checkpoint."""
    steps: list[Step] = []
    for made in materialize_run(definitions, instance):
        steps += made
        told = made[-1].reported
        loss = f", loss {told['loss']:.4f}" if "loss" in told else ""
        console.print(f"{made[-1].asset}: {told['work']}{loss}, {told['seconds']:.1f} s", highlight=False)
    export = Path(steps[-1].reported["dagster/uri"])
    console.print(f"{'checkpoint':22}{export}", highlight=False, soft_wrap=True)
    console.print(answer(export, lake_root() / TINY / "train.jsonl"), markup=False, highlight=False, soft_wrap=True)


def _make_scores(console: Console, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Score the checkpoint and show the leaderboard."""
    for made in materialize_scores(definitions, instance):
        told = made[-1].reported
        seconds = f", {told['seconds']:.1f} s" if "seconds" in told else ""
        console.print(f"{made[-1].asset}: {told['work']}{seconds}", highlight=False)
    folder = lake_root() / LEADERBOARD.path[-1]
    print_board(as_table(pl.read_parquet(folder / PARQUET)), console)
    console.print(f"{'leaderboard':22}{folder / MARKDOWN}", highlight=False, soft_wrap=True)


def _why(result: dg.ExecuteInProcessResult, shard: str | None) -> str:
    """The errors of a failed run, the innermost message of each."""
    messages = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            messages.append(f"{event.step_key}{f' of {shard}' if shard else ''}: {error.message if error else ''}")
    return "\n".join(messages) or "the run failed"
