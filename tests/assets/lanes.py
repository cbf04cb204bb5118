"""Small lanes for tests: tiny videos, a tiny geometry, no worker processes, an instance that forgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.components import VideoDataset
from ov_assets.components.lane import Lane
from ov_model.lake.layout import shard_of
from tests.factories import make_record, make_video, write_dataset

TINY = {"sequence_length": 8, "num_images": 2, "square_size": 64, "patch_size": 16}
SHARDED = ("raw_videos", "visidx", "mosaics", "training_jsonl")


@dataclass
class Playground:
    """A raw dataset under `folder` and the lane that is made of it; `options` are attributes of the component."""

    folder: Path
    instance: dg.DagsterInstance
    options: dict[str, Any]
    name: str = "tiny"

    @property
    def raw(self) -> Path:
        """The raw dataset's file."""
        return self.folder / "raw.json"

    @property
    def root(self) -> Path:
        """The dataset's folder in the lake."""
        return self.folder / "lake" / self.name

    def lane(self, **options: Any) -> Lane:
        """The lane, with attributes added."""
        attributes = {
            "dataset_path": str(self.raw),
            "media_root": str(self.folder),
            "root": str(self.root),
            "num_shards": 2,
            "workers": 0,
            "geometry": TINY,
            **self.options,
            **options,
        }
        return VideoDataset.from_attributes_dict(attributes=attributes).lane(self.name, self.folder)

    def write(self, records: Sequence[Any]) -> None:
        """Write the raw dataset."""
        write_dataset(self.raw, records)

    def video(self, name: str, **options: Any) -> str:
        """Make a clip; its path as records give it."""
        make_video(self.folder / name, frames=6, width=64, height=48, **options)
        return name

    def run(
        self, *stages: str, shard: int | None = None, lane: Lane | None = None, **asked: dict[str, bool]
    ) -> dg.ExecuteInProcessResult:
        """Materialize stages, of one shard where they have shards; the instance remembers. asked: config by step."""
        lane = lane or self.lane()
        return dg.materialize(
            list(lane.definitions().assets or []),  # pyright: ignore[reportArgumentType]
            instance=self.instance,
            selection=[lane.key(stage) for stage in stages],
            partition_key=None if shard is None else lane.dataset.shards[shard].key,
            raise_on_error=False,
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {f"{self.name}__{step}": {"config": config} for step, config in asked.items()},
            },
        )

    def run_checks(self, stage: str, *names: str, shard: int | None = None) -> dg.ExecuteInProcessResult:
        """Only evaluate checks, as the Execute button of the UI does; of all shards where none is given."""
        lane = self.lane()
        job = dg.Definitions(assets=lane.definitions().assets).resolve_implicit_global_asset_job_def()
        keys = {dg.AssetCheckKey(lane.key(stage), name) for name in names}
        subset = job.get_subset(asset_selection=set(), asset_check_selection=keys)
        tags = {} if shard is None else {"dagster/partition": lane.dataset.shards[shard].key}
        return subset.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def run_all(self, lane: Lane | None = None) -> list[dg.ExecuteInProcessResult]:
        """Materialize the whole lane, both shards."""
        return [
            self.run("records", lane=lane),
            *(self.run(*SHARDED, shard=shard, lane=lane) for shard in range(2)),
            self.run("train_jsonl", lane=lane),
        ]


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """`stage/check` -> passed, of a run."""
    return {f"{c.asset_key.path[-1]}/{c.check_name}": c.passed for c in result.get_asset_check_evaluations()}


def made_by(result: dg.ExecuteInProcessResult) -> list[str]:
    """The stages that a run materialized, in order."""
    return [key.path[-1] for e in result.get_asset_materialization_events() if (key := e.asset_key)]


def versions_of(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Stage -> data version, of a run."""
    events = [event.materialization for event in result.get_asset_materialization_events()]
    return {event.asset_key.path[-1]: (event.tags or {})["dagster/data_version"] for event in events}


def names_of_shard(shard: int, count: int) -> list[str]:
    """Names of clips that fall into a shard of two; a record's shard follows from the path of its medium."""
    names = (f"clip{number}.mp4" for number in range(1000))
    return list(islice((name for name in names if shard_of(name, 2) == shard), count))


def metadata(result: dg.ExecuteInProcessResult, stage: str, name: str = "tiny") -> dict[str, Any]:
    """Values that a stage reported in a run."""
    key = dg.AssetKey([name, stage])
    (event,) = (e for e in result.get_asset_materialization_events() if e.asset_key == key)
    return {label: value.value for label, value in event.materialization.metadata.items()}


def why(result: dg.ExecuteInProcessResult) -> str:
    """The errors of a run, innermost last."""
    lines = []
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None:
            lines.append(error.message)
            error = error.cause
    return "\n".join(lines)


__all__ = [
    "SHARDED",
    "TINY",
    "Playground",
    "checks_of",
    "made_by",
    "make_record",
    "metadata",
    "names_of_shard",
    "versions_of",
    "why",
]
