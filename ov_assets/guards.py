"""Checks as Dagster knows them, and the refusal to build on a shard whose upstream failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import dagster as dg
from dagster._core.definitions.metadata import normalize_metadata
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from ov_assets.checks import FAILURES_UNDER_LIMIT, Finding, Scope
from ov_model.errors import UpstreamError


def check_spec(
    asset: dg.AssetKey,
    name: str,
    description: str,
    *,
    blocking: bool = True,
    partitions: dg.PartitionsDefinition[Any] | None = None,
) -> dg.AssetCheckSpec:
    """A check within its asset's step; with `partitions`, one shard's pass hides no other's failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=blocking, partitions_def=partitions
        )


def check_result(finding: Finding, asset: dg.AssetKey, name: str, *, blocking: bool = True) -> dg.AssetCheckResult:
    """What a check found, as Dagster's result; a check that does not block warns."""
    return dg.AssetCheckResult(
        passed=finding.passed,
        asset_key=asset,
        check_name=name,
        severity=_severity(finding, blocking),
        description=finding.summary,
        metadata=_metadata(finding),
    )


def check_evaluation(
    finding: Finding, asset: dg.AssetKey, name: str, *, blocking: bool, partition: str
) -> dg.AssetCheckEvaluation:
    """What a check found of one partition, for a run without any: Dagster's result would be of no partition."""
    return dg.AssetCheckEvaluation(
        passed=finding.passed,
        asset_key=asset,
        check_name=name,
        severity=_severity(finding, blocking),
        description=finding.summary,
        metadata=normalize_metadata(_metadata(finding)),
        blocking=blocking,
        partition=partition,
    )


def _severity(finding: Finding, blocking: bool) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if blocking and not finding.tolerated else dg.AssetCheckSeverity.WARN


def _metadata(finding: Finding) -> dict[str, Any]:
    metadata: dict[str, Any] = dict(finding.numbers)
    if finding.offenders:
        metadata["offenders"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in finding.offenders))
    return metadata


def refuse_failed_upstream(upstream: Scope, stage: str) -> None:
    """Raise UpstreamError where what `stage` builds on has more failures than allowed, by its ledger.

    A blocking check stops only the run it is in; this stops a later run of the stage alone. What is missing
    upstream, the library refuses itself.
    """
    finding = FAILURES_UNDER_LIMIT.run(upstream)
    if not finding.passed:
        name = upstream.dataset.spec.name
        where = f"{name}/{upstream.stage}" + (f" of {upstream.shard.key}" if upstream.shard else "")
        raise UpstreamError(
            f"{where}: {finding.summary}; mend these samples and materialize it again, or raise failure_limit, "
            f"before {name}/{stage}"
        )


def refuse_after_failed_checks(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey], partition: str | None
) -> None:
    """Raise UpstreamError where one of these blocking checks failed when it last ran on the partition."""
    for key in checks:
        last = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=1, status={Status.SUCCEEDED, Status.FAILED}, partition_filter=PartitionKeyFilter(key=partition)
        )
        if last and last[0].status == Status.FAILED:
            of_shard = f" of {partition}" if partition else ""
            raise UpstreamError(
                f"the check {key.name} of {key.asset_key.to_user_string()}{of_shard} failed the last time; "
                "mend what it names, then materialize that asset again, or only execute its checks"
            )
