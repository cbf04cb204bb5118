"""The shard engine: what is done is not redone, what is shared is made once, what fails is one row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ov_model.codec.choose import ChooseOptions
from ov_model.codec.energy import EnergyOptions
from ov_model.errors import UpstreamError, UsageError
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions
from tests.factories import make_image, make_record, make_video
from tests.lake.lanes import SMALL, files, lane, rows, run


def test_five_records_on_one_video_are_one_decode_and_five_rows(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    dataset = lane(tmp_path, [make_record("v.mp4", id=f"q{i}", question=f"{i}?") for i in range(5)])
    reports = run(dataset)
    for stage in ("raw_videos", "visidx", "mosaics"):
        assert (reports[stage].rows, reports[stage].ok, reports[stage].computed) == (5, 5, 1), stage
    assert [row["id"] for row in rows(dataset)] == ["q0", "q1", "q2", "q3", "q4"]
    first, second = rows(dataset)[:2]
    assert Path(first["image"][0]).samefile(second["image"][0])
    assert first["image"] != second["image"]
    meta = [json.loads(path.read_text())["sample_id"] for path in (dataset.root / "visidx").glob("*.meta.json")]
    assert sorted(meta) == ["q0", "q1", "q2", "q3", "q4"]


def test_the_same_bytes_under_two_names_are_one_decode(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    reports = run(lane(tmp_path, [make_record("a.mp4", id="a"), make_record("b.mp4", id="b")]))
    assert (reports["visidx"].ok, reports["visidx"].computed) == (2, 1)
    assert (reports["mosaics"].ok, reports["mosaics"].computed) == (2, 1)
    names = {path.name for path in (tmp_path / "lake" / "images").rglob("*.jpg")}
    assert names == {"a_000.jpg", "a_001.jpg", "b_000.jpg", "b_001.jpg"}
    again = run(lane(tmp_path, [make_record("a.mp4", id="a"), make_record("b.mp4", id="b")]))
    assert again["raw_videos"].computed == again["visidx"].computed == again["mosaics"].computed == 0


def test_again_does_nothing_and_says_so(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    records = [make_record("v.mp4", id="a"), make_record("gone.mp4", id="b"), make_record(None, id="t", kind="text")]
    first = run(lane(tmp_path, records))
    before = files(tmp_path / "lake")
    second = run(lane(tmp_path, records))
    for stage in ("raw_videos", "visidx", "mosaics"):
        assert second[stage].computed == 0
        assert second[stage].reused == 3
        assert second[stage].data_version == first[stage].data_version
    assert files(tmp_path / "lake") == before


def test_a_record_inserted_at_the_top_computes_one_sample(tmp_path: Path) -> None:
    for i in range(3):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(3)]
    run(lane(tmp_path, records[1:]))
    reports = run(lane(tmp_path, records))
    assert (reports["visidx"].ok, reports["visidx"].computed) == (3, 1)
    assert (reports["mosaics"].ok, reports["mosaics"].computed) == (3, 1)


def test_one_pass_and_two_give_the_same_files(tmp_path: Path) -> None:
    made = []
    for one_pass in (True, False):
        folder = tmp_path / str(one_pass)
        folder.mkdir()
        make_video(folder / "v.mp4", frames=20)
        dataset = lane(folder, [make_record("v.mp4")], paths="relative")
        reports = run(dataset, one_pass=one_pass)
        assert reports["visidx"].computed == reports["mosaics"].computed == 1
        made.append(files(folder / "lake"))
    assert made[0] == made[1]


@pytest.mark.parametrize("workers", [1, 3])
def test_output_does_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(4)]
    made = []
    for count in (0, workers):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(4):
            make_video(folder / f"v{i}.mp4", seed=i)
        run(lane(folder, records, run=RunOptions(num_workers=count), paths="relative"))
        made.append(files(folder / "lake"))
    assert made[0] == made[1]


def test_failures_are_rows_and_retry_takes_only_those(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"this is no video " * 50)
    records = [make_record(name, id=name) for name in ("v.mp4", "empty.mp4", "text.mp4", "gone.mp4")] + [[]]
    reports = run(lane(tmp_path, records))
    for stage in ("raw_videos", "visidx", "mosaics", "training_jsonl"):
        assert reports[stage].rows == 5
        assert reports[stage].ok == 1
        assert reports[stage].failed == 4, stage
        reasons = {"empty_file": 1, "unreadable_container": 1, "missing_file": 1, "bad_record": 1}
        assert reports[stage].reasons == reasons, stage
    make_video(tmp_path / "empty.mp4", seed=3)
    dataset = lane(tmp_path, records, run=RunOptions(num_workers=0, retry_failed=True))
    dataset.raw_videos(dataset.shards[0])
    visidx, mosaics = dataset.visidx_and_mosaics(dataset.shards[0])
    assert (visidx.rows, visidx.ok, visidx.computed) == (5, 2, 1)
    assert (mosaics.rows, mosaics.ok, mosaics.computed) == (5, 2, 1)


def test_a_changed_file_redoes_exactly_its_sample(tmp_path: Path) -> None:
    for i in range(2):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(2)]
    before = run(lane(tmp_path, records))
    make_video(tmp_path / "v1.mp4", seed=9)
    after = run(lane(tmp_path, records))
    for stage in ("raw_videos", "visidx", "mosaics"):
        assert after[stage].computed == 1, stage
        assert after[stage].data_version != before[stage].data_version


def test_a_changed_option_redoes_its_stage_and_what_follows(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", pattern="noise")
    records = [make_record("v.mp4")]
    base = lane(tmp_path, records)
    run(base)
    quality = lane(tmp_path, records, pack=PackOptions(geometry=SMALL, jpeg_quality=60))
    reports = run(quality)
    assert (reports["visidx"].computed, reports["mosaics"].computed) == (0, 1)
    motion = lane(tmp_path, records, choose=ChooseOptions(geometry=SMALL, energy=EnergyOptions(w_mv=0.0)))
    reports = run(motion)
    assert (reports["raw_videos"].computed, reports["visidx"].computed) == (0, 1)
    stages = ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
    changed = [stage for stage in stages if base.code_version(stage) != motion.code_version(stage)]
    assert changed == ["visidx", "mosaics", "training_jsonl", "train_jsonl"]
    changed = [stage for stage in stages if base.code_version(stage) != quality.code_version(stage)]
    assert changed == ["mosaics", "training_jsonl", "train_jsonl"]


def test_duplicates_images_and_text_share_one_jsonl(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    make_image(tmp_path / "i.jpg")
    video = make_record("v.mp4", id="v", data_source="x")
    image, text = make_record("i.jpg", id="i", kind="image"), make_record(None, id="t", kind="text")
    lost = make_record("lost.jpg", id="lost", kind="image")
    dataset = lane(tmp_path, [image, video, text, video, lost, text])
    reports = run(dataset)
    found = rows(dataset)
    assert [row["id"] for row in found] == ["i", "v", "t"]
    assert set(found[0]) == {"id", "conversations", "image"}
    assert isinstance(found[0]["image"], str)
    assert Path(found[0]["image"]).samefile(tmp_path / "i.jpg")
    assert set(found[1]) == {"id", "conversations", "image", "positions_thw"}
    assert found[1]["conversations"][0]["value"] == "<image>\n<image>\nWhat moves?"
    assert set(found[2]) == {"id", "conversations"}
    assert reports["training_jsonl"].duplicates == 2
    assert reports["training_jsonl"].reasons == {"missing_file": 1}


def test_an_empty_shard_succeeds_with_no_rows(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    dataset = lane(tmp_path, [make_record("v.mp4")], num_shards=3)
    dataset.index_records()
    counts = []
    for shard in dataset.shards:
        dataset.raw_videos(shard)
        _, mosaics = dataset.visidx_and_mosaics(shard)
        counts.append(mosaics.rows)
        dataset.training_jsonl(shard)
    assert sorted(counts) == [0, 0, 1]
    assert dataset.train_jsonl().rows == 1


def test_stages_refuse_to_build_on_nothing(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    dataset = lane(tmp_path, [make_record("v.mp4")])
    (shard,) = dataset.shards
    with pytest.raises(UpstreamError, match="materialize records first"):
        dataset.raw_videos(shard)
    dataset.index_records()
    for stage, missing in (
        (dataset.visidx, "raw_videos"),
        (dataset.mosaics, "visidx"),
        (dataset.training_jsonl, "mosaics"),
    ):
        with pytest.raises(UpstreamError, match=f"materialize {missing} of this shard first"):
            stage(shard)
    with pytest.raises(UpstreamError, match=r"shard00of01\.jsonl missing"):
        dataset.train_jsonl()


def test_merged_rows_follow_the_row_numbers_across_shards(tmp_path: Path) -> None:
    for i in range(6):
        make_video(tmp_path / f"v{i}.mp4", seed=i, frames=4)
    dataset = lane(tmp_path, [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(6)], num_shards=3)
    dataset.index_records()
    for shard in dataset.shards:
        dataset.raw_videos(shard)
        dataset.visidx_and_mosaics(shard)
        dataset.training_jsonl(shard)
    dataset.train_jsonl()
    assert [row["id"] for row in rows(dataset)] == [f"v{i}" for i in range(6)]
    assert all(Path(path).is_file() for row in rows(dataset) for path in row["image"])


def test_a_short_video_repeats_frames_and_rotation_turns_the_picture(tmp_path: Path) -> None:
    make_video(tmp_path / "short.mp4", frames=3)
    make_video(tmp_path / "turned.mp4", frames=8, rotation=90)
    dataset = lane(tmp_path, [make_record("short.mp4", id="s"), make_record("turned.mp4", id="r")])
    run(dataset)
    frame_ids = np.load(next((dataset.root / "visidx").glob("sample_s__*.frame_ids.npy")))
    assert frame_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    meta = json.loads(next((dataset.root / "visidx").glob("sample_r__*.meta.json")).read_text())
    assert (meta["H0"], meta["W0"], meta["rotation"]) == (96, 64, 90)


def test_a_policy_that_does_not_fill_mosaics_is_refused_before_any_work(tmp_path: Path) -> None:
    from ov_model.codec.select import SelectOptions

    options = ChooseOptions(geometry=SMALL, select=SelectOptions("exclude", keep_first_full_frame=False))
    with pytest.raises(UsageError, match="exclude does not fill whole mosaics"):
        lane(tmp_path, [], choose=options)
