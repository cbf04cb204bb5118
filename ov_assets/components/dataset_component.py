"""What every dataset component shares: where the data is, how it is cut into shards, how it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ov_assets.components.lane import Lane
from ov_assets.environment import lake_root, scratch_folder
from ov_model.lake.scratch import DEFAULT_GB, Scratch
from ov_model.lake.urls import place
from ov_model.lake.workers import RunOptions


class DatasetComponent(dg.Component, dg.Model, dg.Resolvable):
    """A raw dataset as a lane of assets named after its folder.

    Paths are absolute, or relative to the project; `{{ lake }}` stands for the lake's root (OV_LAKE). `dataset_path`,
    `media_root`, `allowed_roots` and `root` may be `s3://` URLs; keys and endpoint come from the environment (AWS_*).
    Copies of what is fetched go to OV_SCRATCH, `scratch_gb` of them at most. `paths` says how train.jsonl names its
    images. `failure_limit` is the share of samples that may fail before a
    blocking check does.
    """

    dataset_path: str
    num_shards: int = 4
    media_root: str | None = None
    allowed_roots: Sequence[str] = ()
    root: str | None = None
    paths: Literal["absolute", "relative"] = "absolute"
    failure_limit: float = 0.05
    workers: int = 2
    timeout: float | None = None
    memory_gb: float | None = None
    scratch_gb: float = DEFAULT_GB
    description: str = ""
    owners: Sequence[str] = ()

    @classmethod
    def get_additional_scope(cls) -> Mapping[str, Any]:
        """What `{{ lake }}` means in a `defs.yaml`."""
        return {"lake": str(lake_root())}

    def lane(self, name: str, project: Path) -> Lane:
        """The assets of this dataset under `name`; relative paths are read from `project`."""
        raise NotImplementedError

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return self.lane(context.path.name, context.project_root).definitions()

    def _placement(self, name: str, project: Path) -> dict[str, Any]:
        """The fields of a DatasetSpec that say where things are and how they are run."""
        return {
            "dataset_path": place(project, self.dataset_path),
            "root": place(project, self.root) if self.root else lake_root() / name,
            "num_shards": self.num_shards,
            "media_root": place(project, self.media_root) if self.media_root else None,
            "allowed_roots": tuple(place(project, root) for root in self.allowed_roots),
            "scratch": Scratch(scratch_folder(), self.scratch_gb),
            "run": self._run_options(),
            "paths": self.paths,
        }

    def _run_options(self) -> RunOptions:
        given: dict[str, Any] = {"timeout": self.timeout, "memory_gb": self.memory_gb}
        return RunOptions(num_workers=self.workers, **{k: v for k, v in given.items() if v is not None})
