"""What a change makes stale, and what is redone: exactly its own downstream, exactly its own samples."""

from __future__ import annotations

import json

import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver

from ov_assets.components.lane import Lane
from tests.assets.lanes import SHARDED, Playground, make_record, metadata, names_of_shard, versions_of

LATER = ("visidx", "mosaics", "training_jsonl")


def stale(playground: Playground, lane: Lane | None = None) -> set[str]:
    """`stage` or `stage/shard index` of everything that Dagster calls stale."""
    lane = lane or playground.lane()
    resolver = get_stale_status_resolver(playground.instance, list(lane.definitions().assets or []))  # pyright: ignore
    found = set()
    for stage in lane.stages:
        for shard in lane.dataset.shards if stage.sharded else [None]:
            status = resolver.get_status(lane.key(stage.name), shard and shard.key)
            if status.value != "FRESH":
                found.add(stage.name if shard is None else f"{stage.name}/{shard.index}")
    return found


def of_shard(index: int) -> set[str]:
    return {f"{stage}/{index}" for stage in LATER}


def test_a_changed_file_makes_its_shard_stale_and_redoes_its_sample(three_clips: Playground):
    three_clips.run_all()
    assert stale(three_clips) == set()
    three_clips.video(names_of_shard(0, 2)[0], seed=99)
    assert metadata(three_clips.run("raw_videos", shard=0), "raw_videos")["computed"] == 1
    three_clips.run("raw_videos", shard=1)
    assert stale(three_clips) == {*of_shard(0), "train_jsonl"}

    redone = three_clips.run(*LATER, shard=0)
    assert [metadata(redone, stage)["computed"] for stage in ("visidx", "mosaics")] == [1, 1]
    assert metadata(redone, "mosaics")["work"] == "1 of 2 samples computed, 1 media read"
    assert stale(three_clips) == {"train_jsonl"}
    three_clips.run("train_jsonl")
    assert stale(three_clips) == set()


def test_a_touched_file_with_the_same_content_makes_nothing_stale(three_clips: Playground):
    three_clips.run_all()
    path = three_clips.folder / names_of_shard(0, 1)[0]
    path.write_bytes(path.read_bytes())
    three_clips.run("raw_videos", shard=0)
    assert stale(three_clips) == set()


def test_an_edited_question_makes_its_shard_stale_and_decodes_nothing(three_clips: Playground):
    three_clips.run_all()
    records = json.loads(three_clips.raw.read_text())
    records[2]["conversations"][0]["value"] = "<video>\nWhere does it go?"
    three_clips.write(records)
    three_clips.run("records")
    assert stale(three_clips) == {"raw_videos/0", "raw_videos/1"}
    three_clips.run("raw_videos", shard=0)
    three_clips.run("raw_videos", shard=1)
    assert stale(three_clips) == {*of_shard(1), "train_jsonl"}
    redone = three_clips.run(*LATER, shard=1)
    assert [metadata(redone, stage)["computed"] for stage in ("visidx", "mosaics")] == [0, 0]
    assert metadata(redone, "training_jsonl")["work"] == "1 of 1 rows new"


def test_a_record_inserted_at_the_top_computes_one_sample(three_clips: Playground):
    three_clips.run_all()
    before = json.loads(three_clips.raw.read_text())
    name = names_of_shard(0, 3)[2]
    three_clips.write([make_record(three_clips.video(name, seed=7), id=name), *before])
    results = three_clips.run_all()
    computed = [metadata(results[shard + 1], stage)["computed"] for shard in (0, 1) for stage in ("visidx", "mosaics")]
    assert computed == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"normalize": "clip"}, {*of_shard(0), *of_shard(1), "train_jsonl"}),
        ({"signal": "motion"}, {*of_shard(0), *of_shard(1), "train_jsonl"}),
        (
            {"jpeg_quality": 90},
            {f"{stage}/{shard}" for stage in LATER[1:] for shard in (0, 1)} | {"train_jsonl"},
        ),
        ({"paths": "relative"}, {"train_jsonl"}),
        ({"workers": 1, "timeout": 9.0, "failure_limit": 0.5, "description": "other"}, set()),
    ],
)
def test_an_option_makes_stale_what_it_changes(three_clips: Playground, option: dict, expected: set):
    three_clips.run_all()
    assert stale(three_clips, three_clips.lane(**option)) == expected
    assert stale(three_clips) == set()


def test_an_option_of_one_dataset_leaves_another_alone(three_clips: Playground):
    lane, other = three_clips.lane(), three_clips.lane(normalize="clip")
    for stage in ("records", "raw_videos"):
        assert lane.definitions().get_assets_def(lane.key(stage)).code_versions_by_key == (
            other.definitions().get_assets_def(other.key(stage)).code_versions_by_key
        )
    assert lane.dataset.code_version("visidx") != other.dataset.code_version("visidx")


def test_a_changed_option_redoes_the_shard_it_is_run_on(three_clips: Playground):
    three_clips.run_all()
    lane = three_clips.lane(normalize="clip")
    redone = three_clips.run(*SHARDED, shard=0, lane=lane)
    assert metadata(redone, "visidx")["computed"] == 2
    assert stale(three_clips, lane) == {*of_shard(1), "train_jsonl"}


def test_versions_do_not_depend_on_where_or_when(three_clips: Playground, tmp_path):
    here = versions_of(three_clips.run("records")) | versions_of(three_clips.run(*SHARDED, shard=0))
    lane = three_clips.lane(root=str(tmp_path / "elsewhere"), workers=1)
    there = versions_of(three_clips.run("records", lane=lane))
    there |= versions_of(three_clips.run(*SHARDED, shard=0, lane=lane))
    assert here == there
