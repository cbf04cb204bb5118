"""A lane whose raw media and root are behind URLs: the same assets, checks and previews."""

from __future__ import annotations

import pytest

from ov_model.errors import UsageError
from ov_model.lake.urls import filesystem
from tests.assets.lanes import Playground, metadata, versions_of

URLS = {
    "dataset_path": "memory://raw/raw.json",
    "media_root": "memory://raw",
    "root": "memory://lake/tiny",
    "paths": "relative",
}


def test_a_lane_behind_urls_is_checked_and_shown_as_a_local_one(
    three_clips: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OV_SCRATCH", str(three_clips.folder / "scratch"))
    fs = filesystem("memory")
    fs.store.clear()
    for path in [three_clips.raw, *three_clips.folder.glob("*.mp4")]:
        fs.pipe_file(f"raw/{path.name}", path.read_bytes())
    local = three_clips.run_all(three_clips.lane(paths="relative"))
    lane = three_clips.lane(**URLS)
    remote = three_clips.run_all(lane)
    assert all(check.passed for result in remote for check in result.get_asset_check_evaluations())
    assert sum(len(result.get_asset_check_evaluations()) for result in remote) > 8
    assert [versions_of(result) for result in remote] == [versions_of(result) for result in local]
    told = metadata(remote[1], "mosaics")
    assert "data:image/" in told["preview"]
    assert told["ledger"] == "memory://lake/tiny/ledger/mosaics.shard00of02.parquet"
    assert metadata(remote[3], "train_jsonl")["dagster/uri"] == "memory://lake/tiny/train.jsonl"
    assert fs.cat_file("lake/tiny/train.jsonl") == (three_clips.root / "train.jsonl").read_bytes()
    assert not list((three_clips.folder / "scratch").rglob("*.jpg"))
    with pytest.raises(UsageError, match="memory://lake/tiny, it must be local"):
        _ = lane.dataset.root
    name = next(name for name in fs.find("/lake/tiny/images") if name.endswith(".jpg"))
    fs.pipe_file(name, b"not a picture")
    three_clips.options |= URLS
    found = three_clips.run_checks("mosaics", "images_open").get_asset_check_evaluations()
    assert sorted(check.passed for check in found) == [False, True]
