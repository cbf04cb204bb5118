"""What steps printed is kept for OV_LOG_DAYS days (90); runs, events and materializations are kept for good."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from ov_assets.environment import log_days

DAY = 24 * 3600


@dg.sensor(minimum_interval_seconds=DAY, default_status=dg.DefaultSensorStatus.RUNNING)
def remove_old_logs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Once a day, remove what steps printed longer ago than OV_LOG_DAYS days; starts no run."""
    days = log_days()
    logs = context.instance.compute_log_manager
    if days == 0 or not isinstance(logs, LocalComputeLogManager):
        return dg.SkipReason("Nothing is removed: OV_LOG_DAYS is 0, or logs are not files of this machine")
    folder = Path(logs.get_captured_local_path(["any"], "out")).parent
    removed = remove_older(folder, time.time() - days * DAY)
    return dg.SkipReason(f"{removed} files older than {days} days removed below {folder}")


def remove_older(folder: Path, before: float) -> int:
    """Remove the log files below FOLDER/RUN/compute_logs last written before a time; how many they were."""
    old = [path for path in folder.glob("*/compute_logs/*") if path.is_file() and path.stat().st_mtime < before]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
