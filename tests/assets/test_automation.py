"""The schedule and the sensor that keep scores fresh: what a tick asks for, and what its runs do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from tests.assets.evaluations import BENCHMARKS, EvalPlayground, PretendedScoring
from tests.assets.lanes import why

FIRST, SECOND = BENCHMARKS
NOW = datetime(2026, 1, 1, 3, tzinfo=timezone.utc)


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EvalPlayground]:
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    monkeypatch.setattr("ov_assets.evaluation.known_samples", lambda benchmark: None)
    PretendedScoring(monkeypatch)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield EvalPlayground(tmp_path, instance)


def tick(playground: EvalPlayground, *runs: str) -> tuple[list[dg.RunRequest], str]:
    """What a tick of the schedule asks for, and why it asks for nothing."""
    repository = playground.definitions(*runs).get_repository_def()
    context = dg.build_schedule_context(playground.instance, NOW, repository_def=repository)
    found = repository.get_schedule_def("benchmark_refresh").evaluate_tick(context)
    return list(found.run_requests or []), found.skip_message or ""


def look(playground: EvalPlayground, cursor: str | None, *runs: str) -> tuple[list[dg.RunRequest], str | None]:
    """What a tick of the sensor asks for, and its cursor after."""
    repository = playground.definitions(*runs).get_repository_def()
    context = dg.build_sensor_context(playground.instance, cursor, repository_def=repository)
    found = repository.get_sensor_def("new_checkpoint").evaluate_tick(context)
    return list(found.run_requests or []), found.cursor


def asked(requests: Sequence[dg.RunRequest]) -> dict[str | None, list[str]]:
    """Partition -> assets."""
    return {
        request.partition_key: [key.to_user_string() for key in request.asset_selection or []] for request in requests
    }


def do(playground: EvalPlayground, requests: Sequence[dg.RunRequest], *runs: str) -> None:
    """Run what was asked for, but for the benchmarks' own assets, which somebody prepared."""
    for request in requests:
        keys = [key for key in request.asset_selection or [] if key.path[0] != "benchmarks"]
        for key in request.asset_selection or []:
            if key.path[0] == "benchmarks":
                playground.report(key.to_user_string(), "1", request.partition_key)
        result = playground.materialize(keys, playground.definitions(*runs), request.partition_key)
        assert result.success, why(result)
        materialized = {event.asset_key: event.partition for event in result.get_asset_materialization_events()}
        assert materialized == {key: None if key.path == ["leaderboard"] else request.partition_key for key in keys}


def test_both_begin_switched_off(playground: EvalPlayground) -> None:
    repository = playground.definitions().get_repository_def()
    schedule = repository.get_schedule_def("benchmark_refresh")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "UTC")
    assert repository.get_sensor_def("new_checkpoint").default_status == dg.DefaultSensorStatus.STOPPED


def test_the_schedule_asks_for_what_is_missing_then_for_nothing(playground: EvalPlayground) -> None:
    assert tick(playground) == ([], "no checkpoint was made yet; there could be: small")
    playground.report("small/checkpoint", "1")
    chain = ["benchmarks/benchmark_videos", "benchmarks/benchmark_assets", "small/scores", "leaderboard"]
    requests, _ = tick(playground)
    assert asked(requests) == dict.fromkeys(BENCHMARKS, chain)
    do(playground, requests)
    assert tick(playground) == ([], "small: every score is fresh, or being made")


def test_the_schedule_asks_for_what_became_stale_and_for_what_is_below_it(playground: EvalPlayground) -> None:
    playground.prepare()
    do(playground, tick(playground)[0])
    playground.report("benchmarks/benchmark_assets", "2", SECOND)
    assert asked(tick(playground)[0]) == {SECOND: ["small/scores", "leaderboard"]}
    playground.report("benchmarks/benchmark_videos", "2", FIRST)
    assert asked(tick(playground)[0])[FIRST] == ["benchmarks/benchmark_assets", "small/scores", "leaderboard"]


def test_the_schedule_scores_the_newest_checkpoint(playground: EvalPlayground) -> None:
    playground.prepare()
    playground.report("other/checkpoint", "1")
    requests, _ = tick(playground, "small", "other")
    assert asked(requests) == {key: ["other/scores", "leaderboard"] for key in BENCHMARKS}
    do(playground, requests, "small", "other")
    playground.report("small/checkpoint", "2")
    assert asked(tick(playground, "small", "other")[0]) == {key: ["small/scores", "leaderboard"] for key in BENCHMARKS}


def test_a_score_made_by_hand_leaves_the_leaderboard_to_the_schedule(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground.prepare()
    do(playground, tick(playground)[0])
    playground.report("benchmarks/benchmark_assets", "2", FIRST)
    PretendedScoring(monkeypatch, answers=["A", "A"])
    assert playground.score(FIRST).success
    requests, _ = tick(playground)
    assert asked(requests) == {None: ["leaderboard"]}
    do(playground, requests)
    assert tick(playground)[0] == []


def test_a_limited_score_is_made_whole(playground: EvalPlayground) -> None:
    playground.prepare()
    for benchmark in BENCHMARKS:
        playground.score(benchmark)
    playground.score(SECOND, limit=2)
    assert asked(tick(playground)[0]) == {SECOND: ["small/scores", "leaderboard"]}


def test_what_is_on_its_way_is_not_asked_for_again(playground: EvalPlayground) -> None:
    playground.prepare()
    repository = playground.definitions().get_repository_def()
    job = repository.get_implicit_global_asset_job_def()
    playground.instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": FIRST},
        asset_selection=frozenset({dg.AssetKey(["small", "scores"])}),
    )
    assert list(asked(tick(playground)[0])) == [SECOND]


def test_the_sensor_sees_each_new_checkpoint_once(playground: EvalPlayground) -> None:
    assert look(playground, None, "small", "other") == ([], "{}")
    playground.prepare()
    requests, cursor = look(playground, "{}", "small", "other")
    assert asked(requests) == {key: ["small/scores", "leaderboard"] for key in BENCHMARKS}
    assert list(json.loads(cursor or "")) == ["small"]
    assert look(playground, cursor, "small", "other") == ([], cursor)
    do(playground, requests, "small", "other")
    playground.report("small/checkpoint", "1")
    requests, cursor = look(playground, cursor, "small", "other")
    assert requests == [], "the same weights again"
    playground.report("other/checkpoint", "1")
    requests, _ = look(playground, cursor, "small", "other")
    assert asked(requests) == {key: ["other/scores", "leaderboard"] for key in BENCHMARKS}
