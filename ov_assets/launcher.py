"""How runs wait and where they execute: the run coordinator and the run launcher of both instances' `dagster.yaml`.

Runs execute below a Dagster gRPC server: with `host` and `port`, below the one at that address (`ov_assets.runner`, the
only thing that must stay up while they run), else, as Dagster's own launcher does it, below the code location's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value
from dagster._serdes.config_class import ConfigurableClassData
from typing_extensions import Self


class RunQueue(QueuedRunCoordinator):
    """Dagster's queue, in which a pool's limit holds from the first run on.

    Dagster writes the default limit down when a run of the pool is first taken from the queue, and takes all runs that
    wait at that moment without it: the first backfill of a new instance would start several trainings on one GPU.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Write down the limits of the run's pools, and queue it."""
        concurrency = context.dagster_run.run_op_concurrency
        storage = self._instance.event_log_storage
        if concurrency and (unknown := set(concurrency.all_pools or ()) - storage.get_concurrency_keys()):
            for pool in sorted(unknown):
                storage.initialize_concurrency_limit_to_default(pool)
        return super().submit_run(context)


class RunnerLauncher(DefaultRunLauncher):
    """Dagster's default launcher, with a fixed server for the runs and a check whether that server still has them.

    A run that cannot be handed over (the server is away, or ends once its runs have) stays in the queue, as long as the
    queue's `max_user_code_failure_retries` allows. A run that the server no longer has, or whose server has been away
    for `lost_after_seconds`, counts as crashed.
    """

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        host: str | None = None,
        port: int | None = None,
        lost_after_seconds: int = 300,
    ) -> None:
        super().__init__(inst_data)
        self._host = host
        self._port = port
        self._lost_after = lost_after_seconds
        self._away_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Of the instance's `run_launcher.config`; both of `host` and `port`, or none."""
        return {
            "host": dg.Field(dg.StringSource, is_required=False),
            "port": dg.Field(dg.IntSource, is_required=False),
            "lost_after_seconds": dg.Field(dg.IntSource, is_required=False, default_value=300),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Raises DagsterInvalidConfigError-like ValueError where only one of `host` and `port` is given."""
        if ("host" in config_value) != ("port" in config_value):
            raise ValueError(f"run_launcher needs both of host and port, or none of them; found {dict(config_value)}")
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run over.

        Raises:
            DagsterUserCodeUnreachableError: the server is away or ending; the queue tries again.
            DagsterLaunchFailedError: the server refused the run.
        """
        if self._host is None or self._port is None:
            super().launch_run(context)
            return
        client = DagsterGrpcClient(host=self._host, port=self._port)
        client.ping("")
        try:
            self.launch_run_from_grpc_client(self._instance, context.dagster_run, client)
        except DagsterLaunchFailedError as error:
            if "telling it to shut down" not in str(error):
                raise
            raise DagsterUserCodeUnreachableError(
                f"The runner at {self._host}:{self._port} takes no new run: it ends once its runs have"
            ) from error

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Makes Dagster's run monitoring ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the server that a run was handed to still has it; a run that none was told of is left alone."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not started by this launcher")
        try:
            current = deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs
        except DagsterUserCodeUnreachableError:
            now = time.monotonic()
            away = now - self._away_since.setdefault(run.run_id, now)
            lost = away >= self._lost_after
            return CheckRunHealthResult(
                WorkerStatus.FAILED if lost else WorkerStatus.RUNNING,
                f"the server that runs it has not answered for {away:.0f} s (lost after {self._lost_after} s)",
                transient=not lost,
            )
        self._away_since.pop(run.run_id, None)
        if run.run_id in current:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the server that ran it was started anew and no longer has it")
