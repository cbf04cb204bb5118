"""`ov status` and `ov failures`: what the ledgers of a lake say, whoever wrote them and whether or not they ended."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ov_model.errors import UsageError
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import FAILED, Ledger, Row
from ov_model.status import as_dicts, failures, print_failures, print_status, size_text, status
from tests.lake.ledgers import write_ledgers


def row(number: int, **more: Any) -> Row:
    fields: dict[str, Any] = {"bytes": 10, "signal": "residual", "finished_at": f"2026-01-02T03:04:{number:02d}+00:00"}
    if more.get("status") == FAILED:
        fields |= {"bytes": 0, "signal": "", "reason": "decode_error", "detail": f"v{number}.mp4: broken"}
    return Row(number, f"k{number}", f"v{number}", f"v{number}.mp4", "video", **{**fields, **more})


def write(root: Path, stage: str, shard: Shard, rows: list[Row], *, compact: bool = True) -> Path:
    with Ledger(root, stage, shard) as ledger:
        for one in rows:
            ledger.append(one)
        if compact:
            ledger.compact(keep_unseen=True)
    return ledger.path


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two datasets; in `a` one of five samples failed in stage 1, and so in stage 2."""
    for index in (0, 1):
        shard = Shard(index, 2)
        rows = [row(10 * index + i) for i in range(3)]
        if index:
            rows += [row(20, status=FAILED), row(21, status="passed", signal="", bytes=0)]
        write(tmp_path / "a", "visidx", shard, rows)
        write(tmp_path / "a", "mosaics", shard, rows)
    write(tmp_path / "b", "visidx", Shard(0, 1), [row(0, signal="reencode"), row(1, status=FAILED, reason="timeout")])
    return tmp_path


def test_counts_by_dataset_stage_and_shard(lake: Path) -> None:
    found = status(lake)
    assert [(one.dataset, one.stage, one.shard) for one in found] == [
        ("a", "visidx", "shard00of02"),
        ("a", "visidx", "shard01of02"),
        ("a", "mosaics", "shard00of02"),
        ("a", "mosaics", "shard01of02"),
        ("b", "visidx", "shard00of01"),
    ]
    second = found[1]
    assert (second.rows, second.ok, second.passed, second.failed) == (5, 3, 1, 1)
    assert (second.reasons, second.signals, second.bytes) == ({"decode_error": 1}, {"residual": 3}, 30)
    assert (second.finished_at, second.state, second.unsaved) == ("2026-01-02T03:04:21+00:00", "done", 0)


def test_the_output_folder_of_a_command_is_read_like_a_lake(lake: Path) -> None:
    assert [one.dataset for one in status(lake / "b")] == ["b"]
    assert failures(lake / "b")["reason"].to_list() == ["timeout"]


def test_a_lake_s_benchmarks_are_counted_too(lake: Path) -> None:
    write(lake / "benchmarks" / "mvbench_offline", "assets", Shard(0, 1), [row(0), row(1, status=FAILED)])
    assert status(lake)[-1].dataset == "mvbench_offline"
    assert failures(lake, dataset="mvbench_offline").height == 1
    assert [one.dataset for one in status(lake / "benchmarks")] == ["mvbench_offline"]


def test_a_folder_without_ledgers_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger below it"):
        status(tmp_path)
    with pytest.raises(UsageError, match="no ledger below it"):
        failures(tmp_path)


def test_a_journal_counts_over_the_rows_it_replaces_and_a_torn_end_does_not(tmp_path: Path) -> None:
    shard = Shard(0, 1)
    write(tmp_path, "visidx", shard, [row(0, status=FAILED), row(1)])
    path = write(tmp_path, "visidx", shard, [row(0, status=FAILED), row(0), row(2)], compact=False)
    with path.with_suffix(".journal.jsonl").open("ab") as stream:
        stream.write(b'{"row": 3, "key": "k3", "id"')
    found = status(tmp_path)[0]
    assert (found.rows, found.ok, found.failed, found.unsaved) == (3, 3, 0, 2)
    assert found.state == "cut off"
    assert failures(tmp_path).is_empty()


def test_a_shard_that_has_only_a_journal_yet(tmp_path: Path) -> None:
    write(tmp_path, "visidx", Shard(0, 1), [row(0), row(1, status=FAILED)], compact=False)
    found = status(tmp_path)[0]
    assert (found.rows, found.ok, found.failed, found.unsaved) == (2, 1, 1, 2)
    assert failures(tmp_path)["id"].to_list() == ["v1"]


def test_a_shard_that_is_being_written_says_by_whom(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", Shard(0, 1)) as ledger:
        ledger.append(row(0))
        assert status(tmp_path)[0].state.startswith(f"running (process {os.getpid()} on ")
        lock = ledger.path.with_suffix(".lock")
        owner = json.loads(lock.read_text())
        lock.write_text(json.dumps({**owner, "started": "another process of this number"}))
        assert status(tmp_path)[0].state == "cut off"
        lock.write_text(json.dumps({**owner, "host": "elsewhere"}))
        assert "on elsewhere" in status(tmp_path)[0].state
        os.utime(lock, (0, time.time() - 1000))
        assert status(tmp_path)[0].state == "cut off"
        lock.write_text(json.dumps(owner))


def test_a_failure_is_listed_once_where_it_first_happened(lake: Path) -> None:
    found = failures(lake)
    assert found.select("dataset", "stage", "shard", "id", "media", "reason", "detail").rows() == [
        ("a", "visidx", "shard01of02", "v20", "v20.mp4", "decode_error", "v20.mp4: broken"),
        ("b", "visidx", "shard00of01", "v1", "v1.mp4", "timeout", "v1.mp4: broken"),
    ]
    assert failures(lake, every_stage=True)["stage"].to_list() == ["visidx", "mosaics", "visidx"]
    assert failures(lake, stage="mosaics")["stage"].to_list() == ["mosaics"]


def test_failures_are_picked_by_reason_and_dataset(lake: Path) -> None:
    assert failures(lake, reason="timeout")["dataset"].to_list() == ["b"]
    assert failures(lake, dataset="a")["dataset"].to_list() == ["a"]
    assert failures(lake, reason="crashed").is_empty()
    assert failures(lake, dataset="none").is_empty()


def test_large_ledgers_are_counted_whole(tmp_path: Path) -> None:
    write_ledgers(tmp_path, rows=40_000, shards=4)
    found = status(tmp_path)
    assert [one.rows for one in found] == [10_000] * 4
    assert sum(one.failed for one in found) == 20_000


def shown(width: int = 160) -> Console:
    return Console(record=True, width=width, file=open(os.devnull, "w"))


def test_the_table_shows_each_shard_and_totals(lake: Path) -> None:
    console = shown()
    print_status(status(lake), console)
    lines = console.export_text().splitlines()
    total = next(line for line in lines if " all " in line)
    assert total.replace("│", " ").split() == [
        *("all", "8", "7", "1", "60", "B", "1", "decode_error,", "1", "without", "video", "6", "residual"),
    ]
    assert sum("shard" in line and "of02" in line for line in lines) == 4
    assert json.loads(json.dumps(as_dicts(status(lake))))[1]["reasons"] == {"decode_error": 1}


def test_the_list_of_failures_is_cut_at_the_limit_and_counted_in_full(lake: Path) -> None:
    console = shown()
    print_failures(failures(lake), limit=1, console=console)
    text = console.export_text()
    assert "a/visidx shard01of02 row 20  id v20  v20.mp4\n    decode_error: v20.mp4: broken\n" in text
    assert "... and 1 more" in text
    assert "2 failed: " in text
    assert "b/visidx" not in text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_450_000_000, "3.5 GB")])
def test_sizes_are_told_for_people(count: int, text: str) -> None:
    assert size_text(count) == text
