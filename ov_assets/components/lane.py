"""One dataset as a lane of assets: its stages in order, partitioned by shard, each with its checks.

Every step can be subset: chosen assets are materialized, chosen checks evaluated, also when only checks are
chosen (the Execute button of the UI). `visidx` and `mosaics` are one step, so that both together decode each
video once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import dagster as dg

from ov_assets.checks import Check, Scope
from ov_assets.components.stages import Stage
from ov_assets.executor import engine
from ov_assets.guards import (
    check_evaluation,
    check_result,
    check_spec,
    refuse_after_failed_checks,
    refuse_failed_upstream,
)
from ov_assets.inputs import described
from ov_assets.jobs import as_failure, still_locked
from ov_assets.metadata import report_metadata
from ov_assets.needs import Need, need_of_workers
from ov_assets.orphans import ending_with_run_worker
from ov_assets.pictures import past_speeds
from ov_assets.versions import code_version, data_version, describe_change, last_data_version
from ov_model.errors import LockedError, OvError, UsageError
from ov_model.lake.dataset import Dataset
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import Report
from ov_model.lake.urls import Location

StepEvent = dg.MaterializeResult | dg.AssetCheckResult | dg.AssetCheckEvaluation
_AGAIN = {
    "retry_failed": dg.Field(
        bool, default_value=False, description="Do the samples that failed again, though nothing changed."
    ),
    "overwrite": dg.Field(bool, default_value=False, description="Do every sample again."),
}


@dataclass(frozen=True)
class Lane:
    """A dataset, the stages it goes through (upstream first) and the groups of stages that are one step."""

    name: str
    dataset: Dataset
    stages: tuple[Stage, ...]
    failure_limit: float
    description: str = ""
    owners: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UsageError(f"dataset {self.name!r}: the folder's name may hold letters, digits and _ only; rename it")
        if not 0 <= self.failure_limit <= 1:
            raise UsageError(f"{self.name}: failure_limit is {self.failure_limit}, expected a share between 0 and 1")

    @cached_property
    def partitions(self) -> dg.StaticPartitionsDefinition:
        """A partition per shard."""
        return dg.StaticPartitionsDefinition([shard.key for shard in self.dataset.shards])

    def key(self, stage: str) -> dg.AssetKey:
        """Asset key of a stage."""
        return dg.AssetKey([self.name, stage])

    def definitions(self) -> dg.Definitions:
        """The assets with their checks, and a job over all partitioned ones."""
        groups: dict[str, list[Stage]] = {}
        for stage in self.stages:
            groups.setdefault(stage.step, []).append(stage)
        sharded = [self.key(stage.name) for stage in self.stages if stage.sharded]
        job = dg.define_asset_job(
            f"{self.name}_shards",
            selection=dg.AssetSelection.assets(*sharded),
            description=f"Every step of {self.name} that works shard by shard.",
        )
        return dg.Definitions(assets=[self._step(name, stages) for name, stages in groups.items()], jobs=[job])

    def _step(self, name: str, stages: Sequence[Stage]) -> dg.AssetsDefinition:
        @dg.multi_asset(
            name=f"{self.name}__{name}",
            specs=[self._spec(stage) for stage in stages],
            check_specs=[
                check_spec(
                    self.key(stage.name),
                    check.name,
                    check.description,
                    blocking=check.blocking,
                    partitions=self.partitions if stage.sharded else None,
                )
                for stage in stages
                for check in stage.checks
            ],
            can_subset=True,
            pool=stages[0].pool,
            op_tags=self.need(stages[0]).op_tags,
            retry_policy=engine().retry,
            config_schema=_AGAIN if stages[0].reads_media else None,
        )
        def step(context: dg.AssetExecutionContext) -> Iterator[StepEvent]:
            try:
                with ending_with_run_worker():
                    yield from self._again(context.op_execution_context.op_config)._run(context, stages)
            except LockedError as error:
                raise still_locked(context, error) from error
            except OvError as error:
                raise as_failure(error) from error

        return step

    def _again(self, asked: Mapping[str, bool] | None) -> "Lane":
        """This lane, its samples done again where the run's configuration asks for it."""
        if not any((asked or {}).values()):
            return self
        spec = self.dataset.spec
        return replace(self, dataset=Dataset(replace(spec, run=replace(spec.run, **(asked or {})))))

    def need(self, stage: Stage) -> Need:
        """What a step of this stage takes."""
        return need_of_workers(self.dataset.spec.run) if stage.reads_media else Need()

    def _spec(self, stage: Stage) -> dg.AssetSpec:
        deps = [self.key(upstream) for upstream in stage.deps]
        return dg.AssetSpec(
            self.key(stage.name),
            deps=deps,
            description=described(stage.description, deps, self.description),
            group_name=self.name,
            kinds=set(stage.kinds),
            owners=self.owners,
            code_version=code_version(self.dataset, stage.name),
            partitions_def=self.partitions if stage.sharded else None,
            metadata={"dagster/column_schema": stage.columns},
            skippable=True,
        )

    def _run(self, context: dg.AssetExecutionContext, stages: Sequence[Stage]) -> Iterator[StepEvent]:
        chosen = [stage.name for stage in stages if self.key(stage.name) in context.selected_asset_keys]
        shard = Shard.parse(context.partition_key) if context.has_partition_key else None
        if not chosen and shard is None and stages[0].sharded:
            yield from self._evaluate_each_shard(context, stages)
            return
        for stage in stages:
            if stage.name in chosen:
                self._refuse(context.instance, stage, [dep for dep in stage.deps if dep not in chosen], shard)
        reports = self._reports(chosen, shard)
        with self.dataset.on_disk(_looked_at(stages), shard) as seen:
            for event in replace(self, dataset=seen)._events(context, stages, reports, shard):
                yield placed(event, self.dataset.spec.root, seen.spec.root)

    def _events(
        self,
        context: dg.AssetExecutionContext,
        stages: Sequence[Stage],
        reports: Mapping[str, Report],
        shard: Shard | None,
    ) -> Iterator[StepEvent]:
        for stage in stages:
            key = self.key(stage.name)
            results = [
                check_result(check.run(self._scope(stage, shard)), key, check.name, blocking=check.blocking)
                for check in self._chosen_checks(context, stage)
            ]
            if stage.name in reports:
                report = reports[stage.name]
                version = data_version(self.dataset, report, shard)
                before = last_data_version(context.instance, key, shard and shard.key)
                speeds = past_speeds(context.instance, key, shard and shard.key)
                change = describe_change(before, version)
                metadata = report_metadata(self.dataset, report, shard, change, speeds)
                context.log.info(f"{key.to_user_string()}: {metadata['work']}; {metadata['change']}")
                yield dg.MaterializeResult(
                    asset_key=key, data_version=dg.DataVersion(version), metadata=metadata, check_results=results
                )
            else:
                yield from results
            if any(not result.passed and result.severity == dg.AssetCheckSeverity.ERROR for result in results):
                return

    def _chosen_checks(self, context: dg.AssetExecutionContext, stage: Stage) -> list[Check]:
        chosen = context.selected_asset_check_keys
        return [check for check in stage.checks if dg.AssetCheckKey(self.key(stage.name), check.name) in chosen]

    def _evaluate_each_shard(
        self, context: dg.AssetExecutionContext, stages: Sequence[Stage]
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """Checks alone, without a partition, as the UI's Execute asks for: one evaluation per shard, failures last."""
        for stage in stages:
            for check in self._chosen_checks(context, stage):
                findings = []
                for shard in self.dataset.shards:
                    with self.dataset.on_disk(_looked_at([stage]), shard) as seen:
                        findings.append((check.run(replace(self, dataset=seen)._scope(stage, shard)), shard))
                for finding, shard in sorted(findings, key=lambda pair: not pair[0].passed):
                    yield check_evaluation(
                        finding, self.key(stage.name), check.name, blocking=check.blocking, partition=shard.key
                    )

    def _scope(self, stage: Stage, shard: Shard | None) -> Scope:
        upstream = stage.deps[0] if stage.deps else ""
        return Scope(self.dataset, stage.name, upstream, shard, self.failure_limit)

    def _refuse(self, instance: dg.DagsterInstance, stage: Stage, deps: Sequence[str], shard: Shard | None) -> None:
        """Raise UpstreamError unless all that the stage builds on is there and well."""
        for upstream in self.stages:
            if upstream.name not in deps:
                continue
            blocking = [dg.AssetCheckKey(self.key(upstream.name), c.name) for c in upstream.checks if c.blocking]
            if not upstream.sharded:
                refuse_after_failed_checks(instance, blocking, None)
                continue
            for part in self.dataset.shards if shard is None else [shard]:
                refuse_failed_upstream(self._scope(upstream, part), stage.name)
                refuse_after_failed_checks(instance, blocking, part.key)

    def _reports(self, chosen: Sequence[str], shard: Shard | None) -> dict[str, Report]:
        dataset = self.dataset
        if list(chosen) == ["visidx", "mosaics"]:
            visidx, mosaics = dataset.visidx_and_mosaics(_need(shard))
            return {"visidx": visidx, "mosaics": mosaics}
        reports = {}
        for name in chosen:
            if name == "records":
                reports[name] = dataset.index_records()
            elif name == "train_jsonl":
                reports[name] = dataset.train_jsonl()
            else:
                reports[name] = getattr(dataset, name)(_need(shard))
        return reports


def _looked_at(stages: Sequence[Stage]) -> list[str]:
    """The stages whose outputs the checks of some stages open."""
    return [name for stage in stages for name in (stage.name, *stage.deps)]


def placed(event: StepEvent, root: Location, copy: Location) -> StepEvent:
    """An event whose metadata names files by where they are, where it was made from a copy."""

    def name(value: Any) -> Any:
        if isinstance(value, dg.PathMetadataValue):
            return dg.MetadataValue.path(name(value.path))
        if isinstance(value, str) and value.startswith(f"{copy}/"):
            return f"{root}{value.removeprefix(str(copy))}"
        return value

    if root == copy or not isinstance(event, dg.MaterializeResult):
        return event
    return event._replace(metadata={key: name(value) for key, value in (event.metadata or {}).items()})


def _need(shard: Shard | None) -> Shard:
    if shard is None:
        raise UsageError("this asset is made shard by shard; choose a partition")
    return shard
