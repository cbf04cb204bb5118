"""How runs wait, where they execute, how their loss is noticed, and how long what they print is kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from ov_assets.defs.logs import DAY, remove_old_logs, remove_older
from ov_assets.environment import default_dagster_home
from ov_assets.launcher import RunnerLauncher, RunQueue
from tests.services.stack import free_ports


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The project's own instance, in a folder of these tests."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(default_dagster_home() / "dagster.yaml", folder)
    with dg.DagsterInstance.from_config(str(folder)) as made:
        yield made


def health(launcher: RunnerLauncher, instance: dg.DagsterInstance, **tags: str) -> WorkerStatus:
    """What the launcher says of a run with these tags."""
    launcher.register_instance(instance)
    run = create_run_for_test(instance, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return launcher.check_run_worker_health(run).status


def test_the_instance_has_the_queue_the_launcher_and_the_limits(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_coordinator, RunQueue)
    assert isinstance(instance.run_launcher, RunnerLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    assert instance.run_monitoring_enabled
    assert instance.run_retries_enabled
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert not instance.telemetry_enabled
    assert instance.global_op_concurrency_default_limit == 1
    found = instance.get_concurrency_config().run_queue_config
    assert found is not None
    assert found.max_concurrent_runs == 4


def test_a_run_of_nobody_knows_whom_is_left_alone(instance: dg.DagsterInstance) -> None:
    assert health(RunnerLauncher(), instance) == WorkerStatus.RUNNING


@pytest.mark.parametrize(("lost_after", "status"), [(300, WorkerStatus.RUNNING), (0, WorkerStatus.FAILED)])
def test_a_run_is_lost_when_its_server_stays_away(
    instance: dg.DagsterInstance, lost_after: int, status: WorkerStatus
) -> None:
    (port,) = free_ports(1)
    where = json.dumps({"host": "127.0.0.1", "port": port})
    assert health(RunnerLauncher(lost_after_seconds=lost_after), instance, **{GRPC_INFO_TAG: where}) == status


def test_half_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="both of host and port"):
        RunnerLauncher.from_config_value(None, {"host": "runner", "lost_after_seconds": 1})  # pyright: ignore


def test_only_old_logs_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "run1" / "compute_logs" / "new.err", tmp_path / "run1" / "output" / "old.out"]
    old = tmp_path / "run2" / "compute_logs" / "old.err"
    for path in (*kept, old):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (old, kept[1]):
        os.utime(path, (0, time.time() - 2 * DAY))
    assert remove_older(tmp_path, time.time() - DAY) == 1
    assert [path.exists() for path in (*kept, old)] == [True, True, False]


def test_logs_are_kept_for_good_where_told(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        skipped = remove_old_logs(dg.build_sensor_context(instance))
        assert isinstance(skipped, dg.SkipReason)
        return skipped.skip_message or ""

    assert "0 files older than 90 days" in said()
    monkeypatch.setenv("OV_LOG_DAYS", "0")
    assert "Nothing is removed" in said()
    monkeypatch.setenv("OV_LOG_DAYS", "a week")
    with pytest.raises(Exception, match="whole number of days"):
        said()
