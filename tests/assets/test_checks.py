"""Checks: what they find, that they stop what is downstream in their shard only, and that they run alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.assets.lanes import SHARDED, Playground, checks_of, made_by, make_record, metadata, names_of_shard, why
from tests.factories import make_video


def first_file(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


@pytest.fixture
def one_bad_shard(three_clips: Playground) -> Playground:
    """Shard 0 has one clip of two that is none."""
    (three_clips.folder / names_of_shard(0, 2)[1]).write_bytes(b"not a video")
    three_clips.run("records")
    return three_clips


def test_a_failed_check_stops_its_shard_and_not_the_other(one_bad_shard: Playground):
    bad = one_bad_shard.run(*SHARDED, shard=0)
    good = one_bad_shard.run(*SHARDED, shard=1)
    assert not bad.success
    assert checks_of(bad) == {"raw_videos/counts_agree": True, "raw_videos/failures_under_limit": False}
    assert made_by(bad) == ["raw_videos"]
    assert good.success
    assert made_by(good) == list(SHARDED)
    assert {check.partition for check in bad.get_asset_check_evaluations()} == {"shard00of02"}
    assert {check.partition for check in good.get_asset_check_evaluations()} == {"shard01of02"}


def test_one_shards_pass_does_not_hide_the_others_failure(one_bad_shard: Playground):
    one_bad_shard.run("raw_videos", shard=0)
    one_bad_shard.run("raw_videos", shard=1)
    assert one_bad_shard.run("visidx", shard=1).success
    refused = one_bad_shard.run("visidx", shard=0)
    assert "UpstreamError: tiny/raw_videos of shard00of02: 1 of 2 samples failed (50.0%; limit 5.0%)" in why(refused)


def test_a_mended_shard_goes_on(one_bad_shard: Playground):
    assert not one_bad_shard.run(*SHARDED, shard=0).success
    one_bad_shard.video(names_of_shard(0, 2)[1], seed=5)
    result = one_bad_shard.run(*SHARDED, shard=0)
    assert result.success, why(result)


def test_visidx_that_fails_its_checks_yields_no_mosaics(playground: Playground):
    """Motion is asked for by name of a clip whose codec has none: probing it is fine, choosing patches is not."""
    (name,) = names_of_shard(0, 1)
    make_video(playground.folder / "x.webm", codec="libvpx-vp9", frames=4, width=64, height=48)
    (playground.folder / "x.webm").rename(playground.folder / name)
    playground.options["signal"] = "motion"
    playground.write([make_record(name, id="x")])
    playground.run("records")
    result = playground.run(*SHARDED, shard=0)
    assert not result.success
    assert made_by(result) == ["raw_videos", "visidx"]
    assert metadata(result, "visidx")["failed by reason"] == {"unsupported_codec": 1}
    assert "mosaics/counts_agree" not in checks_of(result)


def test_changed_positions_are_found_and_stop_mosaics_until_they_are_mended(three_clips: Playground):
    three_clips.run_all()
    path = first_file(three_clips.root, "*.visidx_thw.npy")
    whole = path.read_bytes()
    pos = np.load(path)
    np.save(path, np.where(np.arange(len(pos))[:, None] == 20, pos[:1], pos))

    result = three_clips.run("visidx", "mosaics", shard=0)
    assert checks_of(result)["visidx/positions_valid"] is False
    assert made_by(result) == ["visidx"]
    refused = three_clips.run("mosaics", shard=0)
    assert "the check positions_valid of tiny/visidx of shard00of02 failed the last time" in why(refused)
    assert three_clips.run("visidx", "mosaics", shard=1).success

    path.write_bytes(whole)
    assert checks_of(three_clips.run_checks("visidx", "positions_valid", shard=0)) == {"visidx/positions_valid": True}
    assert three_clips.run("mosaics", shard=0).success


@pytest.mark.parametrize(
    ("stage", "check", "pattern", "damage", "found"),
    [
        ("visidx", "positions_valid", "*.visidx_thw.npy", lambda p: np.save(p, np.load(p).astype("int64")), "int32"),
        ("visidx", "positions_valid", "*.visidx_thw.npy", lambda p: np.save(p, np.load(p)[1:]), "[31, 3]"),
        ("visidx", "positions_valid", "*.visidx_thw.npy", lambda p: np.save(p, np.load(p) + 1), "expected 0.."),
        ("mosaics", "positions_valid", "positions_thw.npy", lambda p: np.save(p, np.load(p)[::-1]), "sorted"),
        ("mosaics", "images_open", "*_001.jpg", lambda p: p.write_bytes(p.read_bytes()[:-200]), "do not decode"),
        ("mosaics", "images_open", "*_001.jpg", lambda p: p.unlink(), "no such file"),
        ("mosaics", "images_open", "*_001.jpg", lambda p: Image.new("RGB", (32, 32)).save(p), "32 x 32"),
        ("training_jsonl", "counts_agree", "shard00of02.jsonl", lambda p: p.write_text(""), "0 lines for 2"),
    ],
)
def test_a_check_finds_damage(three_clips: Playground, stage, check, pattern, damage, found):
    three_clips.run_all()
    assert checks_of(three_clips.run_checks(stage, check, shard=0)) == {f"{stage}/{check}": True}
    folders = {"visidx": "visidx", "mosaics": "images/shard00", "training_jsonl": "jsonl"}
    names = names_of_shard(0, 2)
    paths = list((three_clips.root / folders[stage]).rglob(pattern))
    damage(next(p for p in paths if stage != "visidx" or names[0] in p.name))
    result = three_clips.run_checks(stage, check, shard=0)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert found in str(evaluation.description)


def test_missing_placeholders_are_found_in_shard_and_merged_jsonl(three_clips: Playground):
    three_clips.run_all()
    for stage, path, shard in (
        ("training_jsonl", three_clips.root / "jsonl" / "shard01of02.jsonl", 1),
        ("train_jsonl", three_clips.root / "train.jsonl", None),
    ):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["conversations"][0]["value"] = "What moves?"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (evaluation,) = three_clips.run_checks(stage, "placeholders_match", shard=shard).get_asset_check_evaluations()
        assert not evaluation.passed
        assert "0 <image> in the human turns for 2 images" in str(evaluation.description)


@pytest.mark.parametrize(("stage", "check"), [("mosaics", "images_open"), ("visidx", "positions_valid")])
def test_checks_run_alone_without_a_partition_look_at_each_shard(three_clips: Playground, stage: str, check: str):
    three_clips.run_all()
    folder = three_clips.root / ("images/shard01" if stage == "mosaics" else "visidx")
    name = names_of_shard(1, 1)[0].removesuffix(".mp4")
    next(p for p in folder.rglob(f"*{name}_*") if p.suffix in (".jpg", ".npy") and "frame_ids" not in p.name).unlink()
    result = three_clips.run_checks(stage, check)
    assert not result.success
    found = [(c.partition, c.passed) for c in result.get_asset_check_evaluations()]
    assert found == [("shard00of02", True), ("shard01of02", False)]
    assert checks_of(three_clips.run_checks(stage, check, shard=0)) == {f"{stage}/{check}": True}
    assert checks_of(three_clips.run_checks(stage, check, shard=1)) == {f"{stage}/{check}": False}


def test_all_checks_of_the_lane_run_alone(three_clips: Playground):
    three_clips.run_all()
    for stage in three_clips.lane().stages:
        result = three_clips.run_checks(stage.name, *(check.name for check in stage.checks))
        assert result.success, why(result)
        shards = 2 if stage.sharded else 1
        assert len(result.get_asset_check_evaluations()) == len(stage.checks) * shards


def test_a_shard_is_released_by_a_later_pass_over_all_shards_and_not_by_a_planned_check(three_clips: Playground):
    three_clips.run_all()
    path = first_file(three_clips.root / "images" / "shard00", "*.jpg")
    whole = path.read_bytes()
    path.unlink()
    three_clips.run_checks("mosaics", "images_open", shard=0)
    raw = three_clips.folder / names_of_shard(0, 1)[0]
    clip = raw.read_bytes()
    raw.write_bytes(b"not a video")
    assert made_by(three_clips.run(*SHARDED, shard=0)) == ["raw_videos"]
    raw.write_bytes(clip)
    assert three_clips.run("raw_videos", shard=0).success
    refused = three_clips.run("training_jsonl", shard=0)
    assert "the check images_open of tiny/mosaics of shard00of02 failed the last time" in why(refused)
    path.write_bytes(whole)
    three_clips.run_checks("mosaics", "images_open")
    assert three_clips.run("training_jsonl", shard=0).success


def test_mixed_signals_warn_and_stop_nothing(playground: Playground):
    names = names_of_shard(0, 2)
    playground.video(names[0])
    make_video(playground.folder / "x.webm", codec="libvpx-vp9", frames=4, width=64, height=48)
    (playground.folder / "x.webm").rename(playground.folder / names[1])
    playground.write([make_record(name, id=name) for name in names])
    playground.run("records")
    result = playground.run(*SHARDED, shard=0)
    assert result.success, why(result)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "one_signal"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert check.description == "scored by different signals (reencode: 1, residual: 1)"


def test_a_bad_record_counts_against_the_limit_of_records(three_clips: Playground):
    three_clips.write([*json.loads(three_clips.raw.read_text()), {"id": "x"}])
    result = three_clips.run("records")
    assert checks_of(result) == {"records/failures_under_limit": False}
    refused = three_clips.run("raw_videos", shard=0)
    assert "the check failures_under_limit of tiny/records failed the last time" in why(refused)
