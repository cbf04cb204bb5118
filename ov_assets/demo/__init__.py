"""The whole lane on real clips, through Dagster, in one process: `python -m ov_assets.demo`, or `make demo`.

It writes the demo's raw dataset, materializes every asset of `demo` and `demo_mixture`, checks the JSONLs and
says where things are. A second run decodes no video. Exit code 0 when all is well, else 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from rich import box
from rich.console import Console
from rich.table import Table

from ov_assets.definitions import defs
from ov_assets.environment import default_dagster_home, lake_root
from ov_model.demo import write_raw_dataset
from ov_model.errors import OvError
from ov_model.validate import print_validation, validate_jsonl

DATASET, MIXTURE = "demo", "demo_mixture"
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


def materialize_all(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[list[Step]]:
    """Materialize records, then each shard, then the merged JSONL and the mixture; the steps of each run.

    Raises:
        DemoError: a run failed.
    """
    job = definitions.resolve_implicit_global_asset_job_def()
    lane = [dg.AssetKey([DATASET, stage]) for stage in SHARDED]
    partitions = definitions.resolve_asset_graph().get(lane[0]).partitions_def
    assert partitions is not None
    runs: list[tuple[list[dg.AssetKey], str | None]] = [([dg.AssetKey([DATASET, "records"])], None)]
    runs += [(lane, shard) for shard in partitions.get_partition_keys()]
    runs.append(([dg.AssetKey([DATASET, "train_jsonl"]), dg.AssetKey([MIXTURE, "mixture"])], None))
    for keys, shard in runs:
        result = job.execute_in_process(
            run_config=_QUIET,
            instance=instance,
            asset_selection=keys,
            partition_key=shard,
            raise_on_error=False,
        )
        if not result.success:
            raise DemoError(_why(result, shard))
        yield [
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
            step.shard,
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
    by_shard: dict[str, int] = {}
    for step in steps:
        if step.asset in (f"{DATASET}/visidx", f"{DATASET}/mosaics"):
            by_shard[step.shard] = max(by_shard.get(step.shard, 0), step.reported["computed"])
    return sum(by_shard.values())


def main() -> int:
    """Run the demo; see the module's description."""
    started = time.perf_counter()
    console = Console()
    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(default_dagster_home())
    steps: list[Step] = []
    try:
        raw = write_raw_dataset(lake_root() / "raw" / DATASET)
        with dg.DagsterInstance.get() as instance:
            for made in materialize_all(defs(), instance):
                steps += made
                where = made[0].asset + (f" … {made[-1].asset} {made[0].shard}" if made[0].shard else "")
                console.print(f"materialized {where}", highlight=False)
    except (DemoError, OvError) as error:
        console.print(str(error), style="bold red", markup=False, highlight=False)
        return 1
    console.print(summary(steps))
    made = [Path(step.reported["dagster/uri"]) for step in steps if step.asset.endswith(("train_jsonl", "mixture"))]
    for name, path in (("raw dataset", raw), ("lake", lake_root() / DATASET), *((p.stem, p) for p in made)):
        console.print(f"{name:12}{path}", highlight=False, soft_wrap=True)
    valid = True
    for path in made:
        validation = validate_jsonl(path)
        print_validation(validation, console)
        valid = valid and validation.ok
    console.print(f"{decoded(steps)} videos decoded, {time.perf_counter() - started:.1f} s. See it: make ui")
    return 0 if valid else 1


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
