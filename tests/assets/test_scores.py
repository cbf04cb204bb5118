"""Scores as an asset: what makes them stale, what they say, what is checked of them, and the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver

from ov_assets.pipes import Abandoned, Ended
from tests.assets.evaluations import BENCHMARKS, EvalPlayground, PretendedScoring
from tests.assets.lanes import checks_of, metadata, versions_of, why
from tests.assets.runs import observations

FIRST, SECOND = BENCHMARKS
SCORES = dg.AssetKey(["small", "scores"])


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EvalPlayground]:
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    monkeypatch.setattr("ov_assets.evaluation.known_samples", lambda benchmark: None)
    with dg.DagsterInstance.ephemeral() as instance:
        made = EvalPlayground(tmp_path, instance)
        made.prepare()
        yield made


def stale(playground: EvalPlayground, **options: object) -> set[str]:
    """Benchmarks whose scores Dagster calls stale."""
    assets = list(playground.definitions(**options).assets or [])
    resolver = get_stale_status_resolver(playground.instance, assets)  # pyright: ignore
    return {benchmark for benchmark in BENCHMARKS if resolver.get_status(SCORES, benchmark).value != "FRESH"}


def severities(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        check.check_name: check.severity.value for check in result.get_asset_check_evaluations() if not check.passed
    }


def test_what_changes_makes_its_own_scores_stale(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedScoring(monkeypatch)
    assert stale(playground) == {*BENCHMARKS}
    for benchmark in BENCHMARKS:
        result = playground.score(benchmark)
        assert result.success, why(result)
    assert stale(playground) == set()
    playground.report("benchmarks/benchmark_assets", "2", SECOND)
    assert stale(playground) == {SECOND}
    playground.score(SECOND)
    assert stale(playground) == set()
    playground.report("benchmarks/benchmark_videos", "2", FIRST)
    assert stale(playground) == {FIRST}
    playground.score(FIRST)
    playground.report("small/checkpoint", "2")
    assert stale(playground) == {*BENCHMARKS}


def test_options_that_change_answers_make_scores_stale_and_others_do_not(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    PretendedScoring(monkeypatch)
    for benchmark in BENCHMARKS:
        playground.score(benchmark)
    for option in ({"batch_size": 4}, {"visual": "both"}, {"fallback": "frames"}, {"precision": "bf16"}):
        assert stale(playground, **option) == {*BENCHMARKS}, option
    same = {"python": "other", "pool": None, "retries": 5, "num_processes": 8, "device": "cpu", "require_signal": True}
    assert stale(playground, **same) == set()


def test_a_score_says_what_it_rests_on(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    playground.options["training_signals"] = {"residual": 90, "reencode": 10}
    process = PretendedScoring(monkeypatch)
    result = playground.score(FIRST)
    told = metadata(result, "scores", "small")
    assert told["work"] == "codec: 4 questions scored"
    assert (told["score"], told["HIT"], told["MISS"], told["invalid"]) == (75.0, 4, 0, 0)
    assert told["signals"] == {"residual": 4}
    assert told["training signals"] == {"residual": 90, "reencode": 10}
    assert told["visual tokens"] == 162.0
    assert [record.data["metric"] for record in told["metrics"].records] == ["acc"]
    assert told["change of score"] == "no earlier run of other inputs"
    assert Path(told["dagster/uri"]).parent.parent == playground.lake / "small" / "scores" / FIRST
    assert checks_of(result) == {
        f"scores/{name}": True for name in ("all_hit", "sample_count", "signals_agree", "reproducible")
    }
    assert observations(result)[-1] == {"answers": 4}
    (job,) = process.jobs
    assert job["config"]["tasks"] == [FIRST]
    assert job["config"]["home"] == str(playground.lake / "benchmarks")
    again = playground.score(FIRST)
    assert metadata(again, "scores", "small")["work"] == "codec: 4 questions scored before"
    assert versions_of(again) == versions_of(result)


def test_other_inputs_give_a_paired_difference(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedScoring(monkeypatch)
    playground.score(FIRST)
    PretendedScoring(monkeypatch, answers=["A", "A", "A", "A"], assets="other")
    told = metadata(playground.score(FIRST), "scores", "small")
    assert told["change of score"].startswith("acc +0.2500 (95 % interval -0.2400 to +0.7400, 4 documents), against ")
    again = metadata(playground.score(FIRST, rerun=True), "scores", "small")
    assert again["change of score"] == told["change of score"]


def test_the_same_inputs_must_give_the_same_answers(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = PretendedScoring(monkeypatch)
    playground.score(FIRST)
    assert checks_of(playground.score(FIRST, rerun=True))["scores/reproducible"]
    process.answers = ["A", "A", "A", "B"]
    result = playground.score(FIRST, rerun=True)
    assert not checks_of(result)["scores/reproducible"]
    assert severities(result) == {"reproducible": "ERROR"}
    (found,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    offenders = str(found.metadata["offenders"].value)
    assert f"- {FIRST}/1" in offenders
    assert f"- {FIRST}/3" in offenders


def test_a_miss_blocks_unless_plain_frames_were_asked_for(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    PretendedScoring(monkeypatch, counts={"hit": 3, "miss": 1})
    assert severities(playground.score(FIRST)) == {"all_hit": "ERROR"}
    asked = playground.score(FIRST, fallback="frames")
    assert severities(asked) == {"all_hit": "WARN"}
    (found,) = [check for check in asked.get_asset_check_evaluations() if not check.passed]
    assert "MISS 1, invalid 0 of 4 videos" in str(found.metadata["offenders"].value)
    assert "clip: miss: no asset" in str(found.metadata["offenders"].value)


def test_a_limited_run_is_not_the_benchmarks_score(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedScoring(monkeypatch)
    result = playground.score(FIRST, limit=2)
    assert severities(result) == {"sample_count": "ERROR"}
    assert metadata(result, "scores", "small")["samples"] == 2


def test_another_number_of_questions_than_the_registry_says_is_told(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    PretendedScoring(monkeypatch)
    monkeypatch.setattr("ov_assets.evaluation.known_samples", lambda benchmark: 5)
    result = playground.score(FIRST)
    assert severities(result) == {"sample_count": "WARN"}
    (found,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert found.description == "codec: the data hold 4 questions, the registry says 5"
    assert severities(playground.score(FIRST, limit=2)) == {"sample_count": "ERROR"}


@pytest.mark.parametrize(
    ("trained", "agrees"),
    [
        ({"residual": 9, "reencode": 1}, True),
        ({"reencode": 1}, False),
        ({"residual": 1, "reencode": 9}, True),
        (None, False),
    ],
)
def test_signals_of_training_and_evaluation(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch, trained: dict[str, int] | None, agrees: bool
) -> None:
    PretendedScoring(monkeypatch)
    playground.options["training_signals"] = trained
    assert severities(playground.score(FIRST)) == ({} if agrees else {"signals_agree": "WARN"})
    playground.options["require_signal"] = True
    result = playground.score(FIRST)
    assert severities(result) == ({} if agrees else {"signals_agree": "ERROR"})


def test_checks_alone_look_at_what_was_scored(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "materialize it first" in why(playground.run_check("all_hit"))
    PretendedScoring(monkeypatch, counts={"hit": 3, "miss": 1})
    playground.score(SECOND)
    result = playground.run_check("all_hit")
    (found,) = result.get_asset_check_evaluations()
    assert (found.partition, found.passed) == (SECOND, False)


def test_what_failed_upstream_is_not_built_on(playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    process = PretendedScoring(monkeypatch)
    playground.report_failed_check("benchmarks/benchmark_assets", "assets_whole", FIRST)
    assert f"assets_whole of benchmarks/benchmark_assets of {FIRST} failed" in why(playground.score(FIRST))
    assert playground.score(SECOND).success
    assert playground.score(FIRST, fallback="frames").success, "asked for by name"
    playground.report_failed_check("small/checkpoint", "export_complete", None)
    assert "export_complete of small/checkpoint failed" in why(playground.score(FIRST, fallback="frames"))
    assert len(process.jobs) == 2


def test_missing_assets_are_not_tried_again_and_a_killed_process_is(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Ended(2, {"error": "MissingAssets", "message": "run ov precompute", "retry": False})
    process = PretendedScoring(monkeypatch, [refused])
    assert "MissingAssets: run ov precompute" in why(playground.score(FIRST))
    assert len(process.jobs) == 1
    failed = Ended(1, {"error": "EvaluationFailed", "message": "rank 0 was killed", "retry": True})
    process = PretendedScoring(monkeypatch, [Ended(-9, {}), failed])
    assert playground.score(FIRST).success
    assert len(process.jobs) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Abandoned("gone"), FileNotFoundError("python9")])
def test_what_nobody_waits_for_is_not_tried_again(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    process = PretendedScoring(monkeypatch, [end])
    assert not playground.score(FIRST).success
    assert len(process.jobs) == 1


def test_the_leaderboard_has_scores_misses_and_deltas(
    playground: EvalPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground.options["visual"] = "both"
    PretendedScoring(monkeypatch)
    told = metadata(playground.score(FIRST), "scores", "small")
    assert told["work"] == "codec: 4 questions scored; frames: 4 questions scored"
    assert told["on plain frames (frames)"] == 4
    PretendedScoring(monkeypatch, counts={"hit": 3, "miss": 1}, answers=["A", "B"])
    playground.score(SECOND, fallback="frames")
    result = playground.board()
    assert result.success, why(result)
    (event,) = result.get_asset_materialization_events()
    values: dict[str, Any] = {name: value.value for name, value in event.materialization.metadata.items()}
    assert values["scores"] == 4
    assert values["MISS"] >= 1
    assert "75.00 HIT 4/4" in values["table"]
    assert "† HIT 3/4, MISS 1" in values["table"]
    assert "+0.00" in values["table"]
    assert values["over time"].startswith("![scores over time](data:image/png;base64,")
    assert len(values["over time"]) < 64 * 1024
    assert pl.read_parquet(values["parquet"]).height == pl.read_csv(values["csv"]).height == 6
    assert values["csv"].startswith(str(playground.lake / "leaderboard"))
    again = playground.board()
    assert versions_of(again) == versions_of(result)
