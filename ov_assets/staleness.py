"""What is stale or missing, as the UI says it too, and what is being made already."""

from __future__ import annotations

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.temporal_context import TemporalContext
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._time import get_current_datetime

_PARTITION = "dagster/partition"
_ON_ITS_WAY = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, *IN_PROGRESS_RUN_STATUSES]


class Staleness:
    """The state of assets at one instant."""

    def __init__(self, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None) -> None:
        assert repository is not None, "Dagster evaluates every tick in a repository"
        self.instance = instance
        graph = repository.asset_graph
        now = TemporalContext(effective_dt=get_current_datetime(), last_event_id=None)
        view = AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
        self.resolver = CachingStaleStatusResolver(instance=instance, asset_graph=graph, loading_context=view)

    def needs(self, key: dg.AssetKey, partition: str | None = None) -> bool:
        """Whether it is stale or was never made."""
        return self.resolver.get_status(key, partition) != StaleStatus.FRESH

    def stale(self, key: dg.AssetKey, partition: str | None = None) -> bool:
        """Whether it was made and is stale."""
        return self.resolver.get_status(key, partition) == StaleStatus.STALE

    def last(self, key: dg.AssetKey) -> dg.EventLogRecord | None:
        """The last materialization, None without any."""
        found = self.instance.fetch_materializations(dg.AssetRecordsFilter(key), limit=1).records
        return found[0] if found else None

    def failed(self, check: dg.AssetCheckKey, partition: str | None) -> bool:
        """Whether a check failed, not only warned, when it last ran on the partition."""
        last = self.instance.event_log_storage.get_asset_check_execution_history(
            check, limit=1, status={Status.SUCCEEDED, Status.FAILED}, partition_filter=PartitionKeyFilter(key=partition)
        )
        if not last or last[0].status != Status.FAILED:
            return False
        event = last[0].event
        found = event.dagster_event.asset_check_evaluation_data if event and event.dagster_event else None
        return found is None or found.severity == dg.AssetCheckSeverity.ERROR

    def in_flight(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Whether a run that makes it is queued or under way."""
        tags = {} if partition is None else {_PARTITION: partition}
        runs = self.instance.get_runs(dg.RunsFilter(statuses=_ON_ITS_WAY, tags=tags))
        return any(run.asset_selection is None or key in run.asset_selection for run in runs)
