"""What keeps scores fresh by itself: a schedule for the newest checkpoint, a sensor for new ones; both begin off.

Both ask for what is stale or missing and for nothing else: a run per benchmark, of its videos, codec assets and scores
from the first of them that needs it, and the leaderboard after them.
"""

import json
from collections.abc import Sequence

import dagster as dg

from ov_assets.components.benchmark_set import BenchmarkSet
from ov_assets.components.leaderboard import LEADERBOARD
from ov_assets.staleness import Staleness

SCORES, CHECKPOINT = "scores", "checkpoint"
_WHOLE = "sample_count"


def benchmark_refresh(benchmarks: BenchmarkSet, runs: Sequence[str], cron: str, timezone: str) -> dg.ScheduleDefinition:
    """The schedule that scores the newest checkpoint."""

    @dg.schedule(
        cron_schedule=cron,
        execution_timezone=timezone,
        name="benchmark_refresh",
        target=_target(benchmarks, runs),
        description="Scores the newest checkpoint on each benchmark whose score is stale or missing.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
    def refresh(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest] | dg.SkipReason:
        staleness = Staleness(context.instance, context.repository_def)
        made = {run: record for run in runs if (record := staleness.last(_key(run, CHECKPOINT))) is not None}
        if not made:
            return dg.SkipReason(f"no checkpoint was made yet; there could be: {', '.join(runs)}")
        newest = max(made, key=lambda run: made[run].timestamp)
        requests = requests_for(staleness, benchmarks, newest, f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M:%S}")
        return requests or dg.SkipReason(f"{newest}: every score is fresh, or being made")

    return refresh


def new_checkpoint(benchmarks: BenchmarkSet, runs: Sequence[str]) -> dg.SensorDefinition:
    """The sensor that scores each checkpoint that was made since it last looked."""

    @dg.sensor(
        name="new_checkpoint",
        target=_target(benchmarks, runs),
        minimum_interval_seconds=60,
        description="Scores each new checkpoint on every benchmark whose score is stale or missing.",
        default_status=dg.DefaultSensorStatus.STOPPED,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        staleness = Staleness(context.instance, context.repository_def)
        seen: dict[str, int] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        fresh = []
        for run in runs:
            record = staleness.last(_key(run, CHECKPOINT))
            if record is not None and record.storage_id > seen.get(run, -1):
                seen[run] = record.storage_id
                fresh.append(run)
                requests += requests_for(staleness, benchmarks, run, f"materialization {record.storage_id}")
        reason = f"{', '.join(fresh)}: every score is fresh, or being made" if fresh else "no new checkpoint"
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(reason),
            cursor=json.dumps(seen, sort_keys=True),
        )

    return look


def requests_for(staleness: Staleness, benchmarks: BenchmarkSet, run: str, occasion: str) -> list[dg.RunRequest]:
    """What to run so that a checkpoint's scores are fresh; the leaderboard alone where only it is stale.

    Args:
        occasion: part of the runs' keys; Dagster starts no second run of a key.
    """
    scores = _key(run, SCORES)
    requests = []
    for benchmark in benchmarks.names:
        if staleness.in_flight(scores, benchmark):
            continue
        chain = [benchmarks.videos, benchmarks.assets, scores]
        needed = [staleness.needs(key, benchmark) for key in chain]
        needed[-1] |= staleness.failed(dg.AssetCheckKey(scores, _WHOLE), benchmark)
        if any(needed):
            selection = [*chain[needed.index(True) :], LEADERBOARD]
            run_key = f"{run}/{benchmark}/{occasion}"
            requests.append(dg.RunRequest(run_key, asset_selection=selection, partition_key=benchmark))
    if not requests and staleness.stale(LEADERBOARD) and not staleness.in_flight(LEADERBOARD, None):
        requests.append(dg.RunRequest(f"{LEADERBOARD.to_user_string()}/{occasion}", asset_selection=[LEADERBOARD]))
    return requests


def _key(run: str, asset: str) -> dg.AssetKey:
    return dg.AssetKey([run, asset])


def _target(benchmarks: BenchmarkSet, runs: Sequence[str]) -> dg.AssetSelection:
    scores = [_key(run, SCORES) for run in runs]
    return dg.AssetSelection.assets(benchmarks.videos, benchmarks.assets, *scores, LEADERBOARD)
