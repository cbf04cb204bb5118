"""An asset with its checks as a step of its own, whole or partitioned; what one is made of and how it is run.

As in a lane: chosen checks are evaluated also when only they are chosen, and nothing is built on what failed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ov_assets.checks import Finding
from ov_assets.executor import engine
from ov_assets.guards import check_evaluation, check_result, check_spec, refuse_after_failed_checks
from ov_assets.jobs import as_failure, still_locked
from ov_assets.metadata import Product
from ov_assets.needs import Need
from ov_assets.orphans import ending_with_run_worker
from ov_assets.versions import describe_change, last_data_version
from ov_model.errors import LockedError, OvError, UpstreamError

StepEvent = dg.MaterializeResult | dg.AssetCheckResult | dg.AssetCheckEvaluation


@dataclass(frozen=True)
class StepCheck:
    """A check of what was made, of one partition (None: of the whole). `blocking`: else it warns."""

    description: str
    find: Callable[[str | None], Finding]
    blocking: bool = True


@dataclass(frozen=True, kw_only=True)
class StepAsset:
    """One asset.

    Args:
        deps: assets that it is stale after; refuse: blocking checks of theirs, whether by partition as well.
        make: makes it, of one partition.
        there: whether something was made of a partition, so that checks have something to look at.
        config: fields of the run's configuration, for `make` to read.
        need: what its step takes; retry: of a step that failed or was lost [default: of one that was lost].
    """

    key: dg.AssetKey
    description: str
    deps: Sequence[dg.AssetKey]
    kinds: frozenset[str]
    group: str
    code_version: str
    columns: dg.TableSchema | None
    make: Callable[[dg.AssetExecutionContext, str | None], Product]
    there: Callable[[str | None], bool]
    checks: Mapping[str, StepCheck] = field(default_factory=dict)
    refuse: Mapping[dg.AssetCheckKey, bool] = field(default_factory=dict)
    partitions: dg.StaticPartitionsDefinition | None = None
    config: Mapping[str, dg.Field] = field(default_factory=dict)
    owners: Sequence[str] = ()
    pool: str | None = None
    need: Need = field(default_factory=Need)
    retry: dg.RetryPolicy | None = None

    def definition(self) -> dg.AssetsDefinition:
        """The asset as Dagster knows it."""

        @dg.multi_asset(
            name="__".join(self.key.path),
            specs=[
                dg.AssetSpec(
                    self.key,
                    deps=self.deps,
                    description=self.description,
                    group_name=self.group,
                    kinds=set(self.kinds),
                    owners=self.owners,
                    code_version=self.code_version,
                    partitions_def=self.partitions,
                    metadata={"dagster/column_schema": self.columns} if self.columns else {},
                    skippable=True,
                )
            ],
            check_specs=[
                check_spec(self.key, name, check.description, blocking=check.blocking, partitions=self.partitions)
                for name, check in self.checks.items()
            ],
            can_subset=True,
            pool=self.pool,
            op_tags=self.need.op_tags,
            retry_policy=self.retry or engine().retry,
            config_schema=dict(self.config),
        )
        def step(context: dg.AssetExecutionContext) -> Iterator[StepEvent]:
            try:
                with ending_with_run_worker():
                    yield from self._run(context)
            except LockedError as error:
                raise still_locked(context, error) from error
            except OvError as error:
                raise as_failure(error) from error

        return step

    def _run(self, context: dg.AssetExecutionContext) -> Iterator[StepEvent]:
        chosen = {check.name for check in context.selected_asset_check_keys}
        checks = {name: check for name, check in self.checks.items() if name in chosen}
        partition = context.partition_key if self.partitions is not None and context.has_partition_key else None
        if not context.selected_asset_keys:
            yield from self._check_alone(checks, partition)
            return
        if self.partitions is not None and partition is None:
            raise UpstreamError(f"{self.key.to_user_string()} is made by partition; choose one")
        for check, partitioned in self.refuse.items():
            refuse_after_failed_checks(context.instance, [check], partition if partitioned else None)
        made = self.make(context, partition)
        change = describe_change(last_data_version(context.instance, self.key, partition), made.data_version)
        where = f" [{partition}]" if partition else ""
        context.log.info(f"{self.key.to_user_string()}{where}: {made.metadata['work']}; {change}")
        yield dg.MaterializeResult(
            asset_key=self.key,
            data_version=dg.DataVersion(made.data_version),
            metadata={**made.metadata, "change": change},
            check_results=[self._result(name, check, partition) for name, check in checks.items()],
        )

    def _result(self, name: str, check: StepCheck, partition: str | None) -> dg.AssetCheckResult:
        return check_result(check.find(partition), self.key, name, blocking=check.blocking)

    def _check_alone(self, checks: Mapping[str, StepCheck], partition: str | None) -> Iterator[StepEvent]:
        """Checks without their asset, as the UI's Execute asks for: of every partition that was made, failures last."""
        if self.partitions is None or partition is not None:
            self._require(self.there(partition))
            yield from (self._result(name, check, partition) for name, check in checks.items())
            return
        there = [key for key in self.partitions.get_partition_keys() if self.there(key)]
        self._require(bool(there))
        for name, check in checks.items():
            found = [(check.find(key), key) for key in there]
            for finding, key in sorted(found, key=lambda pair: not pair[0].passed):
                yield check_evaluation(finding, self.key, name, blocking=check.blocking, partition=key)

    def _require(self, there: bool) -> None:
        if not there:
            name = self.key.to_user_string()
            raise UpstreamError(f"nothing was made of {name} that could be checked; materialize it first")
