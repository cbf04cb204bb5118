"""`ov reshard`: the samples stand in other shards, and whoever runs next finds them done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ov_model import precompute, stage1
from ov_model.errors import LockedError, UsageError
from ov_model.lake.dataset import Dataset
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import VOLATILE, Ledger
from ov_model.lake.workers import RunOptions
from ov_model.ops.reshard import reshard
from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from tests.factories import make_record, make_video, write_dataset
from tests.lake.lanes import lane


def make(tmp_path: Path, *, num_shards: int) -> Dataset:
    records = [make_record(None, id=f"t{i}", kind="text") for i in range(3)]
    for i in range(5):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
        records.append(make_record(f"v{i}.mp4", id=f"v{i}"))
    records += [make_record("v0.mp4", id="again"), make_record("gone.mp4", id="gone"), {"id": "bad"}]
    return lane(tmp_path, records, num_shards=num_shards)


def run_all(dataset: Dataset) -> list[tuple[int, int]]:
    """(computed, not reused) of every stage and shard; the JSONL's rows carry the number of shards."""
    dataset.index_records()
    done = []
    for shard in dataset.shards:
        reports = [dataset.raw_videos(shard), *dataset.visidx_and_mosaics(shard)]
        dataset.training_jsonl(shard)
        done += [(report.computed, report.rows - report.reused) for report in reports]
    dataset.train_jsonl()
    return done


@pytest.mark.parametrize(("before", "after"), [(1, 4), (3, 2), (2, 2)])
def test_a_following_run_computes_nothing_and_the_result_is_the_same(tmp_path: Path, before: int, after: int) -> None:
    dataset = make(tmp_path, num_shards=before)
    run_all(dataset)
    train = (dataset.root / "train.jsonl").read_bytes()
    rows = {stage: all_rows(dataset, stage) for stage in ("raw_videos", "visidx", "mosaics", "training_jsonl")}
    done = reshard(dataset.root, after)
    assert (done.before, done.shards, done.rows["visidx"]) == ((before,), after, 11)
    moved = Dataset(replace(dataset.spec, num_shards=after))
    parts = {path.name: path.read_bytes() for path in (dataset.root / "jsonl").iterdir()}
    assert len(parts) == after
    assert set(run_all(moved)) == {(0, 0)}
    assert {path.name: path.read_bytes() for path in (dataset.root / "jsonl").iterdir()} == parts
    assert (dataset.root / "train.jsonl").read_bytes() == train
    for stage, frame in rows.items():
        found = all_rows(moved, stage)
        config = [] if stage != "training_jsonl" else ["config_hash"]
        assert found.drop(config).equals(frame.drop(config)), stage
    assert len(list((dataset.root / "ledger").glob("*.parquet"))) == 4 * after
    assert len(list((dataset.root / "records").glob("shard*"))) == after


def all_rows(dataset: Dataset, stage: str) -> pl.DataFrame:
    return pl.concat([dataset.ledger(stage, shard) for shard in dataset.shards]).sort("row", "key").drop(VOLATILE)


def test_output_folders_of_commands_are_dealt_as_those_deal(tmp_path: Path) -> None:
    for i in range(4):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
    write_dataset(tmp_path / "raw.json", [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(4)])
    write_dataset(tmp_path / "videos.jsonl", [{"video": f"v{i}.mp4", "key": f"v{i}"} for i in range(4)])
    choose = Stage1Config(
        dataset_path=tmp_path / "raw.json", out_root=tmp_path / "visidx", media_root=tmp_path, num_workers=0,
        square_size=64, sequence_length=8, keep_frames_equiv=2,
    )  # fmt: skip
    assets = PrecomputeConfig(
        jsonl=tmp_path / "videos.jsonl", out_root=tmp_path / "offline", media_root=tmp_path, num_workers=0,
        square_size=64, seq_len_frames=8, num_images=2,
    )  # fmt: skip
    stage1.run(choose)
    precompute.run(assets)
    for root in ("visidx", "offline"):
        reshard(tmp_path / root, 3)
    ok = 0
    for index in range(3):
        made = stage1.run(replace(choose, num_shards=3, shard_id=index))
        assert not isinstance(made, list)
        baked = precompute.run(replace(assets, num_shards=3, shard_id=index))
        assert (made.computed, baked.computed, made.reused, baked.reused) == (0, 0, made.rows, baked.rows)
        ok += made.ok + baked.ok
    assert ok == 8


def test_a_stage_at_work_keeps_it_out(tmp_path: Path) -> None:
    dataset = make(tmp_path, num_shards=2)
    run_all(dataset)
    with Ledger(dataset.root, "visidx", dataset.shards[1]), pytest.raises(LockedError, match="shard01of02"):
        reshard(dataset.root, 4)
    assert not ledger_path(dataset.root, "visidx", Shard(0, 4)).exists()
    with pytest.raises(UsageError, match="at least 1"):
        reshard(dataset.root, 0)
    assert not list((dataset.root / "ledger").glob("*.lock"))


def test_after_removing_and_resharding_nothing_comes_back(tmp_path: Path) -> None:
    from ov_model.ops.remove import What, remove

    dataset = make(tmp_path, num_shards=2)
    run_all(dataset)
    remove(dataset.root, What(samples=("v1",)))
    reshard(dataset.root, 3)
    moved = Dataset(replace(dataset.spec, num_shards=3, run=RunOptions(num_workers=0)))
    assert {computed for computed, _ in run_all(moved)} == {0}
    assert b'"v1"' not in (dataset.root / "train.jsonl").read_bytes()
