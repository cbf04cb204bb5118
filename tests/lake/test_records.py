"""Records: every row of a dataset becomes a Record, usable or with its reason; media stay inside their roots."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ov_model.errors import MissingFile, OutsideRoot, UsageError
from ov_model.lake.index import build_index, index_path, read_index
from ov_model.lake.layout import Shard, sample_key, shard_of, short_sha1
from ov_model.lake.records import read_records, resolve_media
from tests.factories import make_record, write_dataset

GOOD = [
    make_record("a.mp4", id="a"),
    make_record("a.jpg", id="b", kind="image"),
    make_record(["a.jpg", "b.jpg"], id="c", kind="image"),
    make_record(None, id="d", kind="text"),
    make_record("z.mp4", id=7, data_source="x"),  # type: ignore[arg-type]
]
CONVERSATIONS = GOOD[0]["conversations"]
BAD = {
    "not an object": [1, 2],
    "no id": {"video": "a.mp4", "conversations": CONVERSATIONS},
    "empty id": {"id": "", "video": "a.mp4", "conversations": CONVERSATIONS},
    "empty media": {"id": "x", "video": "", "conversations": CONVERSATIONS},
    "null media": {"id": "x", "image": None, "conversations": CONVERSATIONS},
    "two videos": {"id": "x", "video": ["a", "b"], "conversations": CONVERSATIONS},
    "image of numbers": {"id": "x", "image": [1], "conversations": CONVERSATIONS},
    "no conversations": {"id": "x", "video": "a.mp4"},
    "empty conversations": {"id": "x", "video": "a.mp4", "conversations": []},
    "odd turn": {"id": "x", "video": "a.mp4", "conversations": [{"from": "robot", "value": "hi"}]},
    "count": {**make_record(["a.jpg", "b.jpg"], kind="image"), "image": ["a.jpg"]},
    "placeholder in text": {"id": "x", "conversations": [{"from": "human", "value": "<image>"}]},
}


@pytest.mark.parametrize("name", ["raw.json", "raw.jsonl"])
def test_kinds_and_fields(tmp_path: Path, name: str) -> None:
    records = list(read_records(write_dataset(tmp_path / name, GOOD)))
    assert [record.kind for record in records] == ["video", "image", "image", "text", "video"]
    assert [record.id for record in records] == ["a", "b", "c", "d", "7"]
    assert [record.row for record in records] == [0, 1, 2, 3, 4]
    assert records[2].images == ["a.jpg", "b.jpg"]
    assert records[4].data["data_source"] == "x"
    assert all(record.error is None for record in records)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_carries_its_reason(tmp_path: Path, case: str) -> None:
    dataset = write_dataset(tmp_path / "raw.json", [GOOD[0], BAD[case], GOOD[1]])
    records = list(read_records(dataset))
    assert [record.kind for record in records] == ["video", "bad", "image"]
    error = records[1].error
    assert error is not None
    assert error.reason == "bad_record"
    assert "record 1" in str(error)


def test_a_broken_line_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text(json.dumps(GOOD[0]) + '\n{"id": \n\n' + json.dumps(GOOD[3]) + "\n")
    records = list(read_records(path))
    assert [record.kind for record in records] == ["video", "bad", "text"]
    assert "line 2 is not JSON" in str(records[1].error)


def test_a_broken_array_is_said_after_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_text("[" + json.dumps(GOOD[0]) + ", {")
    records = read_records(path)
    assert next(records).id == "a"
    with pytest.raises(UsageError, match=r"raw\.json: the JSON array breaks"):
        next(records)


def test_row_numbers_travel_with_the_row(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "raw.jsonl", [{**GOOD[0], "_row_idx": 41}])
    record = next(read_records(path))
    assert record.row == 41
    assert "_row_idx" not in record.data


def test_published_hashes() -> None:
    video = "videos/ytb_YVQwAEKZpaU.mp4"
    assert short_sha1(video) == "be065f58"
    assert short_sha1(sample_key(video, "YVQwAEKZpaU", 0)) == "e785ce33"
    assert shard_of(sample_key(video, "YVQwAEKZpaU", 0), 8) == 0xE785CE33 % 8


def test_media_resolve_against_root_or_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.mp4").write_bytes(b"x")
    dataset = root / "raw.json"
    assert resolve_media("a.mp4", media_root=root) == root / "a.mp4"
    monkeypatch.chdir(root)
    assert resolve_media("a.mp4", media_root=None) == root / "a.mp4"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFile, match=f"--media_root {root}"):
        resolve_media("a.mp4", media_root=None, dataset_path=dataset)
    with pytest.raises(MissingFile, match="no such file in the media root"):
        resolve_media("b.mp4", media_root=root)


def test_media_may_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(b"x")
    os.symlink(outside / "secret.mp4", root / "link.mp4")
    for media in ("../out/secret.mp4", "link.mp4", str(outside / "secret.mp4")):
        with pytest.raises(OutsideRoot, match="allowed_roots"):
            resolve_media(media, media_root=root)
        assert resolve_media(media, media_root=root, allowed_roots=[outside]) == outside / "secret.mp4"


def numbers(folder: Path, shards: int = 2) -> dict[str, int]:
    return {record.id: record.row for i in range(shards) for record in read_index(folder, Shard(i, shards))}


def test_row_numbers_are_given_once_and_never_change(tmp_path: Path) -> None:
    dataset, folder = tmp_path / "raw.json", tmp_path / "records"
    records = [make_record(f"{name}.mp4", id=name) for name in "abcd"]
    build_index(write_dataset(dataset, records), folder, 2)
    assert numbers(folder) == {"a": 0, "b": 1, "c": 2, "d": 3}
    edited = {**records[2], "conversations": make_record("c.mp4", question="Why?")["conversations"]}
    new = make_record("n.mp4", id="n")
    build_index(write_dataset(dataset, [new, records[0], edited, records[3]]), folder, 2)
    assert numbers(folder) == {"a": 0, "c": 2, "d": 3, "n": 4}
    build_index(write_dataset(dataset, [records[3], new]), folder, 2)
    assert numbers(folder) == {"d": 3, "n": 4}


def test_records_of_one_video_share_a_shard_and_bad_ones_are_kept(tmp_path: Path) -> None:
    records = [make_record("v.mp4", id=f"q{i}") for i in range(5)] + list(BAD.values())
    rows = build_index(write_dataset(tmp_path / "raw.json", records), tmp_path / "records", 4)
    assert rows.height == len(records)
    assert rows.head(5)["shard"].n_unique() == 1
    read = [record for i in range(4) for record in read_index(tmp_path / "records", Shard(i, 4))]
    assert sorted(record.row for record in read) == list(range(len(records)))
    assert sum(record.kind == "bad" for record in read) == len(BAD)


def test_an_unchanged_index_file_keeps_its_time(tmp_path: Path) -> None:
    dataset, folder = write_dataset(tmp_path / "raw.json", GOOD), tmp_path / "records"
    build_index(dataset, folder, 2)
    before = [index_path(folder, Shard(i, 2)).stat().st_mtime_ns for i in range(2)]
    build_index(dataset, folder, 2)
    assert [index_path(folder, Shard(i, 2)).stat().st_mtime_ns for i in range(2)] == before
    assert not list(folder.glob("*.part"))
