"""`ov gc` finds what nothing needs, touches nothing else, and a run after it finds everything done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ov_model.errors import LockedError
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset
from ov_model.lake.ledger import Ledger
from ov_model.mosaic.write import PackOptions
from ov_model.ops.gc import DEFAULT_KINDS, collect
from tests.factories import make_record, make_video, write_dataset
from tests.lake.lanes import files, lane, run


def make(tmp_path: Path, names: str = "abc") -> Dataset:
    for seed, name in enumerate(names):
        make_video(tmp_path / f"{name}.mp4", seed=seed)
    dataset = lane(tmp_path, [make_record(f"{name}.mp4", id=name) for name in names])
    run(dataset)
    return dataset


def test_a_lake_without_garbage_keeps_every_file(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    before = files(dataset.root)
    assert collect(dataset.root, dry_run=False).items == []
    assert files(dataset.root) == before


def test_orphans_of_removed_records_and_of_other_options_go(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    write_dataset(tmp_path / "raw.json", [make_record(f"{name}.mp4", id=name) for name in "ab"])
    small = Geometry(sequence_length=8, num_images=1, square_size=64, patch_size=16)
    options = replace(dataset.spec.choose, geometry=small)
    changed = Dataset(replace(dataset.spec, choose=options, pack=PackOptions(geometry=small)))
    run(changed)
    listed = collect(dataset.root)
    kinds = {item.kind for item in listed.items}
    names = {item.path.name.split("__")[0] for item in listed.items if item.path.parent.name == "visidx"}
    assert (kinds, names) == ({"orphan"}, {"sample_a", "sample_b", "sample_c"})
    assert all(item.path.exists() for item in listed.items)
    size = sum(path.stat().st_size for path in dataset.root.rglob("*") if path.is_file())
    done = collect(dataset.root, dry_run=False)
    assert [item.path for item in done.items] == [item.path for item in listed.items]
    left = sum(path.stat().st_size for path in dataset.root.rglob("*") if path.is_file())
    assert done.bytes == size - left > 0
    assert not list(dataset.root.glob("images/shard00/sample_c__*"))
    reports = run(changed)
    assert reports["visidx"].computed == reports["mosaics"].computed == 0


def test_results_of_other_options_in_a_mixed_ledger_go_only_when_asked_for(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    options = replace(dataset.spec.choose, signal="motion")
    part = Dataset(replace(dataset.spec, choose=options, run=replace(dataset.spec.run, max_samples=1)))
    part.visidx(part.shards[0])
    assert {item.kind for item in collect(dataset.root).items} == {"superseded_options"}
    assert collect(dataset.root, kinds=DEFAULT_KINDS, dry_run=False).items == []
    done = collect(dataset.root, kinds=["superseded_options"], dry_run=False)
    assert len(done.items) == 2 * 3
    assert dataset.ledger("visidx", dataset.shards[0])["id"].to_list() == ["a"]


def test_files_of_other_tools_and_of_unfinished_splits_are_spared(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    (dataset.root / "visidx" / "notes.txt").write_text("mine")
    for path in dataset.root.glob("visidx/sample_a__*"):
        name = path.name.replace("sample_a__", "sample_x__")
        shutil.copy(path, path.with_name(name))
        if name.endswith(".meta.json"):
            path.with_name(name).write_text(json.dumps({"sample_id": "x"}))
    found = collect(dataset.root, dry_run=False)
    assert found.items == []
    assert len([text for text in found.spared if "made by another tool" in text]) == 3
    ledger = dataset.root / "ledger" / "visidx.shard00of01.parquet"
    ledger.rename(ledger.with_name("visidx.shard00of02.parquet"))
    found = collect(dataset.root, dry_run=False)
    assert any("no split into shards is complete" in text for text in found.spared)
    assert len(list(dataset.root.glob("visidx/sample_?__*"))) == 12


def test_an_older_split_and_what_dead_processes_left_go(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    wider = Dataset(replace(dataset.spec, num_shards=2))
    wider.index_records()
    for shard in wider.shards:
        wider.raw_videos(shard)
        wider.visidx_and_mosaics(shard)
        wider.training_jsonl(shard)
    code = (
        "import os; from pathlib import Path; from ov_model.lake.files import temporary\n"
        "from ov_model.lake.lock import ShardLock\n"
        f"root = Path({str(dataset.root)!r}); temporary(root / 'images' / 'x').write_bytes(b'half')\n"
        "ShardLock(root / 'ledger' / 'assets.shard00of01.lock').__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    done = collect(dataset.root, kinds=DEFAULT_KINDS, dry_run=False)
    superseded = {item.path.name for item in done.items if item.kind == "superseded_split"}
    stages = ("raw_videos", "visidx", "mosaics", "training_jsonl")
    assert superseded == {f"{stage}.shard00of01.parquet" for stage in stages}
    assert [item.path.name for item in done.items if item.kind == "left_over"][1:] == ["assets.shard00of01.lock"]
    assert not list(dataset.root.rglob("*.tmp"))
    reports = [wider.visidx_and_mosaics(shard) for shard in wider.shards]
    assert {report.computed for pair in reports for report in pair} == {0}


def test_a_shard_at_work_is_not_judged(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    shutil.copytree(
        next(dataset.root.glob("images/shard00/sample_a__*")), dataset.root / "images/shard00/sample_x__x__00000000"
    )
    with Ledger(tmp_path / "lake", "mosaics", dataset.shards[0]):
        os.utime(tmp_path / "lake" / "ledger" / "mosaics.shard00of01.lock")
        with pytest.raises(LockedError):
            collect(dataset.root, dry_run=False)
    assert len(collect(dataset.root).items) == 3


def test_training_runs_older_than_the_current_one_go(tmp_path: Path) -> None:
    lake = tmp_path / "x"
    lake.mkdir()
    dataset = make(lake, "a")
    home = lake / "run" / "checkpoint"
    for age, name in enumerate(("old", "now", "next")):
        (home / name).mkdir(parents=True)
        (home / name / "run.json").write_text("{}")
        (home / name / "weights").write_bytes(bytes(1000))
        os.utime(home / name / "run.json", (age, age))
    (home / "current").symlink_to("now")
    (lake / "lake").rename(lake / "d")
    assert dataset.spec.name == "d"
    done = collect(lake, dry_run=False)
    assert [(item.kind, item.path) for item in done.items] == [("old_run", home / "old")]
    assert done.bytes == 1002
    assert sorted(path.name for path in home.iterdir()) == ["current", "next", "now"]
