"""What happens when things change between runs: the output follows, or the sample says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ov_model import cli, stage1, stage2
from ov_model.errors import LockedError, UsageError
from ov_model.lake.ledger import Report
from ov_model.lake.lock import ShardLock
from ov_model.lake.workers import RunOptions
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.factories import make_image, make_record, make_video, write_dataset
from tests.lake.lanes import lane, rows, run


class Tools:
    """The two commands on one folder, small and in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def choose(self, records: list[Any], **options: Any) -> Report:
        config = {"out_root": self.folder / "o", "sequence_length": 8, "keep_frames_equiv": 2, "square_size": 64}
        dataset = write_dataset(self.folder / "raw.json", records)
        common = {"dataset_path": dataset, "num_workers": 0, "media_root": self.folder}
        report = stage1.run(Stage1Config(**{**config, **common, **options}))
        assert isinstance(report, Report)
        return report

    def pack(self, records: list[Any], **options: Any) -> tuple[Report, list[dict[str, Any]]]:
        out = self.folder / "train.jsonl"
        config = {"out_image_root": self.folder / "i", "visidx_root": self.folder / "o", "T": 8, "num_images": 2}
        dataset = write_dataset(self.folder / "raw.json", records)
        common = {"input_dataset": dataset, "out_jsonl": out, "num_workers": 0, "square_size": 64}
        report, summary = stage2.run(Stage2Config(**{**config, **common, "media_root": self.folder, **options}))
        return report, [json.loads(line) for line in summary.path.read_text().splitlines()]

    def metas(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.folder / "o").glob("*.meta.json"))]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    make_video(tmp_path / "a.mp4", seed=1)
    make_video(tmp_path / "b.mp4", seed=2)
    return Tools(tmp_path)


A, B = make_record("a.mp4", id="a"), make_record("b.mp4", id="b")


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_an_edited_dataset_is_merged_in_row_order_however_it_is_split(tmp_path: Path, num_shards: int) -> None:
    records = [make_record(None, id=name, kind="text", question=name) for name in "abcdefgh"]
    for listed in (records, [make_record(None, id="new", kind="text"), *records[1:]]):
        dataset = lane(tmp_path, listed, num_shards=num_shards)
        dataset.index_records()
        for shard in dataset.shards:
            dataset.raw_videos(shard)
            dataset.visidx_and_mosaics(shard)
            dataset.training_jsonl(shard)
        dataset.train_jsonl()
    assert [row["id"] for row in rows(dataset)] == [*"bcdefgh", "new"]


def test_a_dataset_may_become_empty_and_full_again(tmp_path: Path) -> None:
    record = make_record(None, id="t", kind="text")
    for listed in ([], [record], [], [record]):
        dataset = lane(tmp_path, listed)
        run(dataset)
        assert [row["id"] for row in rows(dataset)] == [row["id"] for row in listed]


def test_files_that_another_split_overwrote_are_made_again(tools: Tools) -> None:
    tools.choose([A, B], signal="residual")
    for shard in range(2):
        tools.choose([A, B], signal="motion", num_shards=2, shard_id=shard)
    assert {meta["signal"] for meta in tools.metas()} == {"motion"}
    assert tools.choose([A, B], signal="residual").computed == 2
    assert {meta["signal"] for meta in tools.metas()} == {"residual"}
    assert tools.choose([A, B], signal="residual").computed == 0


def test_another_split_waits_for_the_one_that_runs(tools: Tools) -> None:
    with ShardLock(tools.folder / "o" / "ledger" / "visidx.shard00of01.lock"), pytest.raises(LockedError):
        tools.choose([A], num_shards=2, shard_id=0)


def test_a_video_replaced_after_stage_1_is_not_packed(tools: Tools) -> None:
    tools.choose([A])
    shutil.copy(tools.folder / "b.mp4", tools.folder / "a.mp4")
    report, found = tools.pack([A])
    assert (report.reasons, found) == ({"stale_visidx": 1}, [])
    tools.choose([A])
    assert tools.pack([A])[0].ok == 1


def test_what_stage_1_failed_is_not_packed_from_its_older_files(tools: Tools) -> None:
    tools.choose([A])
    tools.choose([A], check_codec=True, allowed_codecs="vp9")
    report, _ = tools.pack([A])
    assert report.reasons == {"missing_visidx": 1}


def test_two_choices_from_one_video_give_two_packs(tools: Tools) -> None:
    records = [make_record("a.mp4", id="x"), make_record("a.mp4", id="y")]
    tools.choose(records)
    tools.choose(records, signal="motion", max_samples=1)
    report, found = tools.pack(records)
    assert report.ok == 2
    kept = [np.load(row["positions_thw"]) for row in found]
    assert not np.array_equal(kept[0], kept[1])


def test_images_are_found_under_the_media_root_or_fail(tools: Tools) -> None:
    (tools.folder / "m").mkdir()
    make_image(tools.folder / "m" / "i.jpg")
    make_image(tools.folder / "out.jpg")
    listed = [make_record(name, id=name, kind="image") for name in ("i.jpg", "gone.jpg", "../out.jpg")]
    tools.choose([A])
    report, found = tools.pack(listed, media_root=tools.folder / "m", absolute_paths=True)
    assert report.reasons == {"missing_file": 1, "outside_root": 1}
    assert [row["image"] for row in found] == [str(tools.folder / "m" / "i.jpg")]


def test_a_folder_called_patches_is_an_ordinary_folder(tools: Tools) -> None:
    tools.choose([A])
    _, found = tools.pack([A], out_image_root=tools.folder / "patches" / "x")
    assert len(found[0]["image"]) == 2


def test_another_budget_leaves_one_choice_to_stage_2(tools: Tools) -> None:
    tools.choose([A, B], padding_policy="exclude")
    tools.choose([A, B])
    assert tools.pack([A, B])[0].ok == 2


def test_superseded_positions_go_and_rewrite_counts_what_it_attaches(tools: Tools) -> None:
    tools.choose([A])
    tools.pack([A])
    with_one, _ = tools.pack([A], mode="rewrite", num_images=1)
    assert with_one.reasons == {"bad_record": 1}
    tools.pack([A], write_positions=False)
    assert not list((tools.folder / "i").rglob("positions_thw.npy"))


def test_lost_stage_1_files_are_named_and_made_again(tools: Tools) -> None:
    tools.choose([A, B])
    for path in (tools.folder / "o").glob("sample_a__*.visidx_thw.npy"):
        path.unlink()
    next((tools.folder / "o").glob("sample_b__*.meta.json")).write_text("")
    report, _ = tools.pack([A, B])
    assert report.reasons == {"missing_visidx": 2}
    assert tools.choose([A]).computed == 1
    assert tools.pack([A])[0].ok == 1


def test_retry_forgets_records_that_left(tools: Tools) -> None:
    tools.choose([A, make_record("gone.mp4", id="g")])
    report = tools.choose([A], retry_failed=True)
    assert (report.rows, report.failed) == (1, 0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (make_record("n" * 300 + ".mp4"), "missing_file"),
        (make_record("/".join(["d" * 200] * 30)), "missing_file"),
        ({**A, "_row_idx": "7"}, "bad_record"),
        ({**A, "_row_idx": True}, "bad_record"),
        ({**make_record("gone.mp4"), "_bad_record": "boo"}, "missing_file"),
        ({**make_record("gone.mp4"), "size": 2**70}, "missing_file"),
    ],
    ids=["long name", "long path", "row as text", "row as truth", "our own field", "huge number"],
)
def test_an_odd_record_costs_itself(tools: Tools, value: Any, reason: str) -> None:
    report = tools.choose([B, value])
    assert (report.ok, report.reasons) == (1, {reason: 1})


def test_one_row_number_for_two_records_is_refused(tools: Tools) -> None:
    second = {**make_record("a.mp4", id="a", question="Why?"), "_row_idx": 0}
    with pytest.raises(UsageError, match="two records carry this row number"):
        tools.choose([{**A, "_row_idx": 0}, second])


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_workers", -1), ("max_samples", -1), ("timeout", -5), ("memory_gb", 0.2), ("maxtasks_per_child", 0)],
)
def test_senseless_numbers_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        RunOptions(**{name: value})  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_one_line(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tools.folder / "raw.json", [A])
    with pytest.raises(SystemExit) as stop:
        cli.main(["stage1", "--dataset_path", str(dataset), "--out_root", str(tools.folder / "a.mp4" / "o")])
    assert stop.value.code == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
