"""A lane from raw records to the merged JSONL: what is made, what is reported, what is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from ov_assets.previews import BUDGET_BYTES
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import read_ledger
from tests.assets.lanes import SHARDED, Playground, make_record, metadata, names_of_shard, versions_of, why
from tests.factories import make_image


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_whole_lane_over_two_shards(three_clips: Playground):
    results = three_clips.run_all()
    assert [result.success for result in results] == [True] * 4
    assert all(check.passed for result in results for check in result.get_asset_check_evaluations())
    rows = rows_of(three_clips.root / "train.jsonl")
    assert [row["id"] for row in rows] == names_of_shard(0, 2) + names_of_shard(1, 1)
    for row in rows:
        assert len(row["image"]) == 2
        assert all(Path(image).is_file() for image in row["image"])
        assert np.load(row["positions_thw"]).shape == (32, 3)


def test_every_stage_reports_what_it_did(three_clips: Playground):
    records, first, _, merged = three_clips.run_all()
    for stage in ("records", *SHARDED, "train_jsonl"):
        result = records if stage == "records" else merged if stage == "train_jsonl" else first
        told = metadata(result, stage)
        assert told["rows"] == (2 if stage in SHARDED else 3)
        assert told["ok"] == told["rows"]
        assert (told["failed"], "failed by reason" in told) == (0, False)
        assert told["bytes"] > 0
        assert len(told["config hash"]) == 16
        assert Path(told["ledger"]).exists()
        assert 1 <= len(told["sample"].records) <= 5
        assert "videos per second" in told
        assert told["change"] == "first materialization"
    assert metadata(first, "visidx")["signals"] == {"residual": 2}
    assert metadata(first, "visidx")["computed"] == 2
    assert metadata(first, "visidx")["videos per second"] > 0


def test_mosaics_show_a_preview_within_its_budget(three_clips: Playground):
    three_clips.run("records")
    preview = metadata(three_clips.run(*SHARDED, shard=0), "mosaics")["preview"]
    assert preview.count("![](data:image/jpeg;base64,") == 2
    assert len(preview.encode()) <= BUDGET_BYTES


def test_a_second_materialization_does_no_work_and_says_so(three_clips: Playground):
    first = three_clips.run_all()
    files = {path: path.stat().st_mtime_ns for path in three_clips.root.rglob("*.npy")}
    second = three_clips.run_all()
    for before, after in zip(first, second, strict=True):
        assert versions_of(before) == versions_of(after)
    for stage in SHARDED:
        told = metadata(second[1], stage)
        assert told["work"].startswith("0 of 2 ")
        assert (told["computed"], told["change"]) == (0, "content unchanged")
    assert metadata(second[3], "train_jsonl")["change"] == "content unchanged"
    assert files == {path: path.stat().st_mtime_ns for path in three_clips.root.rglob("*.npy")}


def test_visidx_and_mosaics_chosen_together_decode_each_video_once(three_clips: Playground, monkeypatch):
    from ov_model.lake import work

    decoded, read_again = [], []
    choose, read = work.choose_patches, work.read_contents
    monkeypatch.setattr(work, "choose_patches", lambda *a, **k: decoded.append(a[0]) or choose(*a, **k))
    monkeypatch.setattr(work, "read_contents", lambda *a, **k: read_again.append(a[0]) or read(*a, **k))
    three_clips.run("records")
    assert three_clips.run(*SHARDED, shard=0).success
    assert (len(decoded), read_again) == (2, [])


def test_stages_chosen_one_by_one_give_the_same_files(three_clips: Playground, tmp_path: Path):
    together = three_clips.lane()
    apart = three_clips.lane(root=str(tmp_path / "apart"))
    for lane, groups in ((together, [SHARDED]), (apart, [(stage,) for stage in SHARDED])):
        assert three_clips.run("records", lane=lane).success
        for group in groups:
            result = three_clips.run(*group, shard=0, lane=lane)
            assert result.success, why(result)
    files = [p.relative_to(together.dataset.root) for p in together.dataset.root.rglob("*.npy")]
    files += [p.relative_to(together.dataset.root) for p in together.dataset.root.rglob("*.jpg")]
    assert len(files) == 2 * (2 + 1 + 2)
    for file in files:
        assert (together.dataset.root / file).read_bytes() == (apart.dataset.root / file).read_bytes()


def test_an_empty_shard_succeeds_with_no_rows(playground: Playground):
    (name,) = names_of_shard(0, 1)
    playground.write([make_record(playground.video(name), id=name)])
    results = playground.run_all()
    assert [why(result) for result in results] == [""] * 4
    assert [metadata(results[2], stage)["rows"] for stage in SHARDED] == [0] * 4
    assert metadata(results[3], "train_jsonl")["rows"] == 1


def test_a_stage_refuses_a_shard_whose_upstream_is_missing(three_clips: Playground):
    result = three_clips.run("raw_videos", shard=0)
    assert "UpstreamError" in why(result)
    assert "materialize records first" in why(result)
    three_clips.run("records")
    for stage, upstream in (("visidx", "raw_videos"), ("mosaics", "visidx"), ("training_jsonl", "mosaics")):
        result = three_clips.run(stage, shard=0)
        assert f"materialize {upstream} of this shard first" in why(result)
    result = three_clips.run("train_jsonl")
    assert "shard00of02.jsonl, shard01of02.jsonl missing" in why(result)


def test_train_jsonl_refuses_one_missing_shard(three_clips: Playground):
    three_clips.run("records")
    assert three_clips.run(*SHARDED, shard=0).success
    result = three_clips.run("train_jsonl")
    assert not result.success
    assert "shard01of02.jsonl missing" in why(result)
    assert not (three_clips.root / "train.jsonl").exists()


def test_images_and_text_pass_through_a_video_lane(playground: Playground):
    make_image(playground.folder / "picture.jpg")
    playground.write(
        [
            make_record(playground.video("a.mp4"), id="v"),
            make_record("picture.jpg", id="i", kind="image"),
            make_record(None, id="t", kind="text"),
        ]
    )
    results = playground.run_all()
    assert [why(result) for result in results] == [""] * 4
    rows = {row["id"]: row for row in rows_of(playground.root / "train.jsonl")}
    assert set(rows) == {"v", "i", "t"}
    assert rows["i"]["image"] == str(playground.folder / "picture.jpg")
    assert "image" not in rows["t"]


def test_a_failure_is_reported_by_reason_and_keeps_its_shard_going(playground: Playground):
    names = names_of_shard(0, 3)
    playground.options["failure_limit"] = 0.5
    playground.write([make_record(playground.video(name), id=name) for name in names])
    (playground.folder / names[1]).write_bytes(b"not a video")
    results = playground.run_all()
    assert [why(result) for result in results] == [""] * 4
    told = metadata(results[1], "raw_videos")
    assert (told["ok"], told["failed"], told["failed by reason"]) == (2, 1, {"unreadable_container": 1})
    (failure,) = told["failures"].records
    assert failure.data["id"] == names[1]
    assert len(rows_of(playground.root / "train.jsonl")) == 2


def test_failed_samples_or_all_are_done_again_where_a_run_asks_for_it(playground: Playground):
    names = names_of_shard(0, 3)
    playground.options["failure_limit"] = 0.5
    playground.write([make_record(playground.video(name), id=name) for name in names])
    (playground.folder / names[1]).write_bytes(b"not a video")
    playground.run_all()
    ledger = ledger_path(playground.root, "raw_videos", Shard(0, 2))
    for config, done in (({}, set()), ({"retry_failed": True}, {names[1]}), ({"overwrite": True}, set(names))):
        before = read_ledger(ledger).select("id", before="finished_at")
        assert why(playground.run("raw_videos", shard=0, raw_videos=config)) == ""
        now = read_ledger(ledger).join(before, on="id")
        assert set(now.filter(now["finished_at"] > now["before"])["id"]) == done


@pytest.mark.parametrize("stage", ["raw_videos", "visidx"])
def test_a_stage_of_shards_asks_for_a_partition(three_clips: Playground, stage: str):
    three_clips.run("records")
    lane = three_clips.lane()
    job = dg.Definitions(assets=lane.definitions().assets).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[lane.key(stage)], instance=three_clips.instance, raise_on_error=False
    )
    assert "choose a partition" in why(result)
