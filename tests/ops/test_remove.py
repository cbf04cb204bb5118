"""`ov remove`: what was removed is gone from every file, and nothing brings it back or takes its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov_model.errors import UsageError
from ov_model.lake.index import read_index
from ov_model.ops.remove import What, remove, restore
from tests.factories import make_image, make_record, make_video, write_dataset
from tests.lake.lanes import files, lane, rows, run


def make(tmp_path: Path, names: str = "abc"):
    for seed, name in enumerate(names):
        make_video(tmp_path / f"{name}.mp4", seed=seed)
    make_image(tmp_path / "i.png")
    records = [make_record(f"{name}.mp4", id=name) for name in names]
    records += [
        make_record("a.mp4", id="a2"),
        make_record("i.png", id="i", kind="image"),
        make_record(None, id="t", kind="text"),
    ]
    return records


def test_a_removed_record_is_gone_and_stays_gone_while_the_raw_file_has_it(tmp_path: Path) -> None:
    records = make(tmp_path)
    dataset = lane(tmp_path, records)
    before = run(dataset)
    listed = remove(dataset.root, What(samples=("b",)), dry_run=True)
    assert [record.id for record in listed.records] == ["b"]
    assert [len(listed.files), listed.lines["train.jsonl"]] == [3 + 3, 1]
    assert all(path.exists() for path in listed.files)
    done = remove(dataset.root, What(samples=("b",)))
    assert done.files == listed.files
    assert done.bytes == listed.bytes > 0
    assert not any("b.mp4" in name or "__b__" in name for name in files(dataset.root))
    assert b"b.mp4" not in b"".join(
        data for name, data in files(dataset.root).items() if name != "records/removed.jsonl"
    )
    removed = files(dataset.root)
    after = run(dataset)
    assert {name: data for name, data in files(dataset.root).items() if name != "records/rows.parquet"} == {
        name: data for name, data in removed.items() if name != "records/rows.parquet"
    }
    assert [row["id"] for row in rows(dataset)] == ["a", "c", "a2", "i", "t"]
    for stage in ("records", "visidx", "mosaics", "training_jsonl", "train_jsonl"):
        assert after[stage].data_version != before[stage].data_version, stage
        assert after[stage].computed == 0


def test_its_number_is_not_given_again_and_restore_brings_it_back(tmp_path: Path) -> None:
    records = make(tmp_path)
    dataset = lane(tmp_path, records)
    run(dataset)
    remove(dataset.root, What(samples=("t",)))
    write_dataset(tmp_path / "raw.json", [*records[:-1], make_record(None, id="new", kind="text")])
    run(dataset)
    numbers = {record.id: record.row for record in read_index(dataset.root / "records", dataset.shards[0])}
    assert (numbers["new"], "t" in numbers) == (6, False)
    write_dataset(tmp_path / "raw.json", [*records, make_record(None, id="new", kind="text")])
    run(dataset)
    assert "t" not in [row["id"] for row in rows(dataset)]
    assert [stone.row for stone in restore(dataset.root, What(samples=("t",)))] == [5]
    run(dataset)
    numbers = {record.id: record.row for record in read_index(dataset.root / "records", dataset.shards[0])}
    assert (numbers["t"], numbers["new"]) == (5, 6)
    assert [row["id"] for row in rows(dataset)][-2:] == ["t", "new"]
    assert not (dataset.root / "records" / "removed.jsonl").exists()


@pytest.mark.parametrize("by", ["path", "absolute", "hash"])
def test_a_removed_medium_takes_all_its_records_also_later_ones(tmp_path: Path, by: str) -> None:
    records = make(tmp_path)
    dataset = lane(tmp_path, records, num_shards=2)
    for step in (dataset.raw_videos, dataset.visidx_and_mosaics, dataset.training_jsonl):
        if step == dataset.raw_videos:
            dataset.index_records()
        for shard in dataset.shards:
            step(shard)
    dataset.train_jsonl()
    frames = [dataset.ledger("raw_videos", shard) for shard in dataset.shards]
    content = next(f.filter(media="a.mp4")["content_hash"][0] for f in frames if f.filter(media="a.mp4").height)
    what = {
        "path": What(media=("a.mp4",)),
        "absolute": What(media=(str(tmp_path / "a.mp4"),)),
        "hash": What(content_hashes=(content,)),
    }[by]
    done = remove(dataset.root, what)
    assert sorted(record.id for record in done.records) == ["a", "a2"]
    assert done.media == ["a.mp4"]
    assert [row["id"] for row in rows(dataset)] == ["b", "c", "i", "t"]
    write_dataset(tmp_path / "raw.json", [*records, make_record("a.mp4", id="a3")])
    dataset.index_records()
    found = [record.id for shard in dataset.shards for record in read_index(dataset.root / "records", shard)]
    assert sorted(found) == ["b", "c", "i", "t"]
    assert (tmp_path / "a.mp4").exists()


def test_files_that_another_record_needs_stay(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    records = [make_record("a.mp4", id="a"), make_record("a.mp4", id="a", question="And where?")]
    dataset = lane(tmp_path, records)
    run(dataset)
    done = remove(dataset.root, What(samples=("a.mp4|a|0",)))
    assert not [path for path in done.files if "images" in path.parts]
    assert len(done.files) == 3
    reports = run(dataset)
    assert reports["mosaics"].computed == reports["visidx"].computed == 0
    assert all(Path(image).exists() for image in rows(dataset)[0]["image"])


def test_a_jsonl_that_was_not_up_to_date_goes_as_a_whole(tmp_path: Path) -> None:
    dataset = lane(tmp_path, make(tmp_path))
    run(dataset)
    lines = (dataset.root / "train.jsonl").read_text().splitlines()
    (dataset.root / "train.jsonl").write_text("\n".join(lines[:3]) + "\n")
    done = remove(dataset.root, What(samples=("b",)))
    assert done.rebuild == [dataset.root / "train.jsonl"]
    assert not (dataset.root / "train.jsonl").exists()
    run(dataset)
    assert "b" not in [row["id"] for row in rows(dataset)]


def test_unknown_names_and_folders_are_refused(tmp_path: Path) -> None:
    dataset = lane(tmp_path, make(tmp_path, "a"))
    run(dataset)
    with pytest.raises(UsageError, match="nothing is named nobody"):
        remove(dataset.root, What(samples=("nobody",)))
    with pytest.raises(UsageError, match="no tombstone of a"):
        restore(dataset.root, What(samples=("a",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no ledger"):
        remove(tmp_path / "empty", What(samples=("a",)))
    assert json.loads((dataset.root / "train.jsonl").read_text().splitlines()[0])["id"] == "a"
