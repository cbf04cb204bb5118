"""The ledger: what is appended is there after any crash, once; one writer at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ov_model.errors import LockedError
from ov_model.lake.files import atomic_write, link_or_copy, write_folder
from ov_model.lake.layout import Shard, safe_name
from ov_model.lake.ledger import Ledger, Row, read_ledger
from ov_model.lake.lock import ShardLock

SHARD = Shard(0, 1)


def row(key: str, number: int = 0, **more: object) -> Row:
    return Row(number, key, key, f"{key}.mp4", "video", **more)  # type: ignore[arg-type]


def test_rows_survive_without_compaction_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        ledger.append(row("a", 0))
        ledger.append(row("b", 1, status="failed", reason="timeout"))
        path, journal = ledger.path, ledger.journal
    with journal.open("ab") as stream:
        stream.write(b'{"row": 2, "key": "c", "id')
    assert not path.exists()
    assert read_ledger(path)["key"].to_list() == ["a", "b"]
    with Ledger(tmp_path, "visidx", SHARD) as again:
        found = again.find("b")
        assert found is not None
        assert found.reason == "timeout"
        again.keep("a")
        again.append(row("b", 1))
        frame = again.compact(keep_unseen=False)
    assert frame["status"].to_list() == ["ok", "ok"]
    assert read_ledger(path).equals(frame)
    assert not journal.exists()


def test_killed_between_parquet_and_journal_nothing_is_doubled(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        ledger.append(row("a"))
        journal = ledger.journal.read_bytes()
        ledger.compact(keep_unseen=False)
        path = ledger.path
    path.with_suffix(".journal.jsonl").write_bytes(journal)
    assert read_ledger(path)["key"].to_list() == ["a"]


def test_rows_of_records_that_left_are_dropped_unless_the_run_was_partial(tmp_path: Path) -> None:
    for partial, expected in ((True, ["a", "b"]), (False, ["b"])):
        with Ledger(tmp_path, "visidx", SHARD) as ledger:
            if partial:
                ledger.append(row("a", 0))
                ledger.append(row("b", 1))
            else:
                ledger.keep("b")
            assert ledger.compact(keep_unseen=partial)["key"].to_list() == expected


def test_an_unchanged_ledger_is_not_rewritten(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        ledger.append(row("a"))
        ledger.compact(keep_unseen=False)
    before = ledger.path.stat().st_mtime_ns
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        ledger.keep("a")
        ledger.compact(keep_unseen=False)
    assert ledger.path.stat().st_mtime_ns == before


def test_late_lines_of_a_writer_that_lost_its_lock_do_not_count(tmp_path: Path) -> None:
    late = Ledger(tmp_path, "visidx", SHARD)
    late.__enter__()
    late.append(row("a"))
    assert isinstance(late.lock, ShardLock)
    owner = json.loads(late.lock.path.read_text())
    late.lock.path.write_text(json.dumps({**owner, "host": "elsewhere"}))
    os.utime(late.lock.path, (0, 0))
    with Ledger(tmp_path, "visidx", SHARD) as heir:
        assert (late.lock.fence, heir.lock.fence) == (1, 2)
        assert heir.find("a") is not None
        late._stream.write(late._line(row("into the file that was open", 1)))
        late._stream.flush()
        heir.append(row("b", 2))
        with heir.journal.open("ab") as stream:
            stream.write(late._line(row("under the name", 3)))
        assert read_ledger(heir.path)["key"].to_list() == ["a", "b"]
        with pytest.raises(LockedError, match="taken over"):
            late.append(row("c", 4))
        assert {json.loads(line)["fence"] for line in heir.journal.read_bytes().splitlines()} == {1, 2}
        heir.compact(keep_unseen=True)
    assert read_ledger(heir.path)["key"].to_list() == ["a", "b"]


def test_a_ledger_from_before_a_column_reads_as_empty_there(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        ledger.append(row("a"))
        ledger.compact(keep_unseen=False)
    pl.read_parquet(ledger.path).drop("etag").write_parquet(ledger.path)
    assert read_ledger(ledger.path, ("etag", "key")).rows() == [("", "a")]
    assert read_ledger(ledger.path)["etag"].to_list() == [""]


def test_a_second_writer_is_refused_and_named(tmp_path: Path) -> None:
    with ShardLock(tmp_path / "x.lock"), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        ShardLock(tmp_path / "x.lock").__enter__()
    with ShardLock(tmp_path / "x.lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_owner_was_killed_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from ov_model.lake.lock import ShardLock\n"
        f"ShardLock(Path({str(tmp_path / 'x.lock')!r})).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / "x.lock").exists()
    with ShardLock(tmp_path / "x.lock") as lock:
        lock.check()


def test_a_lock_of_another_host_holds_until_it_stops_beating(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(json.dumps({"token": "t", "host": f"not-{socket.gethostname()}", "pid": 1, "started": "1"}))
    with pytest.raises(LockedError, match="not-"):
        ShardLock(path).__enter__()
    os.utime(path, (0, 0))
    with ShardLock(path):
        pass


def test_an_owner_that_lost_its_lock_stops(tmp_path: Path) -> None:
    with Ledger(tmp_path, "visidx", SHARD) as ledger:
        lock = ledger.path.with_suffix(".lock")
        lock.write_text(json.dumps({"token": "another", "host": "h", "pid": 3}))
        with pytest.raises(LockedError, match="taken over by process 3 on h"):
            ledger.append(row("a"))
    assert lock.exists()


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")

    def write_half() -> None:
        with atomic_write(target) as stream:
            stream.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_links_share_and_folders_appear_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"x": b"1", "patches/y": b"2"})
    link_or_copy(tmp_path / "a" / "x", tmp_path / "b" / "x")
    link_or_copy(tmp_path / "a" / "x", tmp_path / "b" / "x")
    assert os.path.samefile(tmp_path / "a" / "x", tmp_path / "b" / "x")
    assert (tmp_path / "a" / "patches" / "y").read_bytes() == b"2"
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("name", ["YVQwAEKZpaU", "a b", "v1.2", "ünï", "a__b", "-x", "50%"])
def test_ordinary_names_stay(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a\0b", "a\nb", ".hidden", "a\\b", "x" * 300, "é" * 200]
)
def test_dangerous_names_become_one_ordinary_part(name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set("/\\\0\n")
    assert not safe.startswith(".")
    assert len(safe.encode()) <= 80
