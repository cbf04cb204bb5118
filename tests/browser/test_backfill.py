"""A backfill over all benchmarks, launched as the UI does, fills a row of the leaderboard; failures are seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

import polars as pl

from ov_model.eval.leaderboard import MEASURED, PARQUET
from tests.browser.browser import Tab
from tests.browser.ui import Ui, dagster_dev, own_environment
from tests.eval.fixtures import fixture
from tests.eval.hub import hub
from tests.eval.models import tiny_checkpoint
from tests.factories import make_record, make_video, write_dataset

HUB = "tomato"
BENCHMARKS = ("demo", HUB)
DEFINITIONS = """
import os
from pathlib import Path
import dagster as dg
from ov_assets.components import Benchmarks, ExternalCheckpoint, VideoDataset

HERE = Path(__file__).parent
PRECOMPUTE = {"seq_len_frames": 8, "num_images": 2, "square_size": 64, "num_workers": 0}
benchmarks = Benchmarks.from_attributes_dict(
    attributes={"benchmarks": ["demo", "tomato"], "precompute": PRECOMPUTE, "owners": ["team:lake"]}
)
scores = {"retries": 0, "device": "cpu", "observe_every": 1, "training_signals": {"residual": 1}}
checkpoint = ExternalCheckpoint.from_attributes_dict(attributes={"checkpoint": "weights", "scores": scores})
foreign = checkpoint.foreign("theirs", HERE)
step = checkpoint.scores.step(checkpoint.source(foreign), benchmarks.benchmark_set("benchmarks"), HERE)
clips = VideoDataset.from_attributes_dict(
    attributes={
        "dataset_path": str(HERE / "raw.json"), "media_root": str(HERE), "num_shards": 2, "failure_limit": 0.9,
        "geometry": {"sequence_length": 8, "num_images": 2, "square_size": 64}, "workers": 0,
    }
)
defs = dg.Definitions.merge(
    benchmarks.definitions("benchmarks", ["theirs"]),
    clips.lane("clips", HERE).definitions(),
    dg.Definitions(assets=[checkpoint.step(foreign).definition(), step.definition()]),
)
"""


@pytest.fixture(scope="module")
def ui(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """A project with a tiny checkpoint, two benchmarks, one of them from a hub, and a dataset with a missing video."""
    folder = tmp_path_factory.mktemp("backfill")
    (folder / "definitions.py").write_text(DEFINITIONS)
    tiny_checkpoint(folder / "weights")
    names = [make_video(folder / f"clip{i}.mp4", frames=12, seed=i).name for i in range(6)]
    records = [make_record(name, id=Path(name).stem) for name in [*names, "gone.mp4"]]
    write_dataset(folder / "raw.json", records)
    held = fixture(HUB, folder / "clips")
    with hub() as local:
        local.add(held)
        environment = own_environment(folder, **local.environment(folder / "lake" / "benchmarks"))
        with dagster_dev(folder, environment, "-f", str(folder / "definitions.py")) as ui:
            yield ui


def test_a_backfill_over_all_partitions_fills_the_row_of_a_checkpoint(ui: Ui, tab: Tab) -> None:
    assert ui.materialize("theirs/checkpoint") == "SUCCESS"
    for asset in ("benchmarks/benchmark_videos", "benchmarks/benchmark_assets", "theirs/scores"):
        assert ui.backfill(asset, BENCHMARKS) == "COMPLETED_SUCCESS", asset
    assert ui.materialize("leaderboard") == "SUCCESS"
    board = pl.read_parquet(ui.lake / "leaderboard" / PARQUET).filter(kind=MEASURED)
    assert sorted(board["benchmark"]) == sorted(BENCHMARKS)
    assert board["miss"].sum() == 0
    assert all(board["hit"].to_list())

    tab.open(f"{ui.url}/assets/theirs/scores?view=partitions&partition=demo", "Materialized (2)", "HIT")
    tab.page.locator("tr", has_text="plot").first.get_by_text("[Show Markdown]").click()
    assert all(width >= 600 for width, _ in tab.pictures("[class*=ialog] img"))
    tab.shot("scores")
    tab.open(f"{ui.url}/assets/leaderboard?view=overview", "over time", "2 scores of 1 checkpoints")
    tab.shot("leaderboard")


def test_a_shard_with_a_missing_video_tells_which_and_why(ui: Ui, tab: Tab) -> None:
    shards = ("shard00of02", "shard01of02")
    assert ui.materialize("clips/records") == "SUCCESS"
    for asset in ("clips/raw_videos", "clips/visidx"):
        assert ui.backfill(asset, shards) == "COMPLETED_SUCCESS", asset
    failed = next(
        shard
        for shard in shards
        if not pl.read_parquet(ui.lake / "clips" / "ledger" / f"raw_videos.{shard}.parquet")
        .filter(reason="missing_file")
        .is_empty()
    )
    tab.open(f"{ui.url}/assets/clips/raw_videos?view=partitions&partition={failed}", "failed by reason", "missing_file")
    tab.page.locator("tr", has_text="why samples failed").first.get_by_text("[Show Markdown]").click()
    assert tab.pictures("[class*=ialog] img")
    tab.shot("failed_shard")
    assert ui.backfill("clips/raw_videos", [failed]) == "COMPLETED_SUCCESS"  # a check shows its last evaluation
    tab.open(f"{ui.url}/assets/clips/raw_videos?view=checks&checkDetail=failures_under_limit", "1 missing_file")
    tab.shot("failed_check")
