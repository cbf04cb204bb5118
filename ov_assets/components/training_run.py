"""`TrainingRun`: a mixture or dataset -> token lengths, projector, checkpoint, each trained in a process of its own."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ov_assets.checks import MIXTURE_CHECKS
from ov_assets.components.dataset_component import DatasetComponent
from ov_assets.components.lookup import components_of, find_benchmarks, find_lane, not_defined
from ov_assets.components.mixture import Mixture
from ov_assets.components.run_assets import CHECKPOINT, PROJECTOR, TOKEN_LENGTHS, RunAssets
from ov_assets.components.scores import ScoresAttributes
from ov_assets.components.stages import VIDEO_STAGES
from ov_assets.environment import lake_root
from ov_assets.needs import NeedAttributes, need_of_processes
from ov_assets.training import Stage, Trainer, TrainingData
from ov_model.errors import UsageError
from ov_model.lake.files import hash_json
from ov_model.train.recipe import SHIPPED, Recipe, load_recipe


class StageAttributes(dg.Model, dg.Resolvable):
    """A recipe, shipped or a YAML file, and the fields of it that are other here: `optim.max_steps: 100`."""

    recipe: str
    overrides: dict[str, Any] | None = None

    def load(self, stage: Literal["projector", "full"], project: Path) -> Recipe:
        """The recipe, its stage set to the asset's.

        Raises:
            UsageError: no such recipe, or values that do not fit.
        """
        source = self.recipe if self.recipe in SHIPPED else project / self.recipe
        values = {**(self.overrides or {}), "stage": stage}
        return load_recipe(source, [f"{name}={json.dumps(value)}" for name, value in values.items()])


class TrainingRun(dg.Component, dg.Model, dg.Resolvable):
    """A training run named after its folder: `token_lengths`, `projector`, `checkpoint`.

    `data` names a mixture or a dataset. `nproc`: processes, one a GPU; with another number, batches differ, so it
    counts as a change. `python`: interpreter of another environment that has ov-lake's extra `train` and
    dagster-pipes; None is this one. Paths are absolute, or relative to the project. A stage that failed or was
    killed is tried `retries` times again, from its last checkpoint. `observe_every`: seconds between observations.
    `scores`: how the checkpoint is scored, where the project has benchmarks. `need`: what a training takes of a
    cluster's machine [a GPU a process, its decoding processes' CPUs].
    """

    data: str
    projector: StageAttributes
    checkpoint: StageAttributes
    nproc: int = 1
    python: str | None = None
    pool: str | None = "gpu"
    retries: int = 2
    retry_delay: float = 5.0
    observe_every: float = 10.0
    need: NeedAttributes = NeedAttributes()
    scores: ScoresAttributes = ScoresAttributes()
    description: str = ""
    owners: Sequence[str] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        name = context.path.name
        run = self.run(name, context.project_root, self._data(context, name))
        benchmarks = find_benchmarks(context)
        if benchmarks is None:
            return run.definitions()
        step = self.scores.step(run.source, benchmarks, context.project_root, self.description, self.owners)
        return dg.Definitions.merge(run.definitions(), dg.Definitions(assets=[step.definition()]))

    def run(self, name: str, project: Path, data: TrainingData) -> RunAssets:
        """The assets of this run under `name`."""
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UsageError(f"run {name!r}: the folder's name may hold letters, digits and _ only; rename it")
        if self.nproc < 1 or self.retries < 0:
            raise UsageError(f"run {name}: nproc is {self.nproc}, retries {self.retries}; expected 1 and 0, or more")
        home = lake_root() / name
        projector = self.projector.load("projector", project)
        full = self.checkpoint.load("full", project)
        versions = [[recipe.config_hash, _samples_a_step(recipe, self.nproc)] for recipe in (projector, full)]
        return RunAssets(
            name=name,
            data=data,
            trainer=Trainer(self.nproc, self.python, project, self.observe_every),
            projector=Stage(dg.AssetKey([name, PROJECTOR]), home / PROJECTOR, projector, hash_json(versions[:1])[:16]),
            checkpoint=Stage(dg.AssetKey([name, CHECKPOINT]), home / CHECKPOINT, full, hash_json(versions)[:16]),
            lengths_home=home / TOKEN_LENGTHS,
            pool=self.pool,
            retry=dg.RetryPolicy(max_retries=self.retries, delay=self.retry_delay),
            need=self.need.over(need_of_processes(self.nproc, 1 + max(projector.data.workers, full.data.workers))),
            description=self.description,
            owners=tuple(self.owners),
        )

    def _data(self, context: dg.ComponentLoadContext, name: str) -> TrainingData:
        asker = f"run {name}"
        found = next((c for c in components_of(context, self.data) if isinstance(c, (Mixture, DatasetComponent))), None)
        if found is None:
            raise not_defined(context, asker, "data", self.data)
        if isinstance(found, Mixture):
            datasets = {entry.dataset: find_lane(context, asker, entry.dataset) for entry in found.datasets}
            asset, checks, jsonl = "mixture", tuple(MIXTURE_CHECKS), lake_root() / self.data / "mixture.jsonl"
        else:
            lane = find_lane(context, asker, self.data)
            datasets, asset, jsonl = {self.data: lane}, "train_jsonl", lane.dataset.root / "train.jsonl"
            checks = tuple(check.name for stage in lane.stages if stage.name == asset for check in stage.checks)
        with_videos = tuple(lane.dataset for lane in datasets.values() if lane.stages == VIDEO_STAGES)
        return TrainingData(dg.AssetKey([self.data, asset]), jsonl, checks, with_videos)


def _samples_a_step(recipe: Recipe, processes: int) -> int:
    return recipe.optim.batch_size * recipe.optim.accumulation * processes
