"""A clock that jumps in the middle of a run, either way: nothing is lost, redone or written by two at once."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from ov_model import stage1
from ov_model.errors import LockedError
from ov_model.lake.ledger import Report, read_ledger
from ov_model.lake.lock import EXPIRY, ShardLock
from ov_model.stage1 import Stage1Config
from tests.factories import make_record, make_video, write_dataset
from tests.faults.processes import Running
from tests.faults.stages import Playground


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground.make(tmp_path_factory.mktemp("clock"))


@pytest.mark.parametrize("jump", ["400", "-400"])
def test_a_run_whose_clock_jumps_ends_as_any_other(playground: Playground, tmp_path: Path, jump: str) -> None:
    clock, out = tmp_path / "clock", tmp_path / "out"
    clock.write_text("0")
    command = [sys.executable, "-m", "tests.faults.jumping_clock", *playground.arguments("stage1", out)]
    run = Running(command, {"CLOCK": str(clock)})
    run.wait_until(lambda: playground.under_way("stage1", out))
    clock.write_text(jump)
    with run.suspended():
        assert "being written by process" in playground.start("stage1", out).finish(1)
    run.finish()
    playground.expect_as_undisturbed("stage1", out)
    ledger = read_ledger(out / "ledger" / "visidx.shard00of01.parquet")
    years = {datetime.fromisoformat(text).year for text in ledger["finished_at"]}
    assert len(years) == 2, "the clock did not jump"
    again = playground.start("stage1", out).finish()
    assert "0 media in" in again
    playground.expect_as_undisturbed("stage1", out)


@pytest.mark.parametrize("seconds", [-400 * 86400, 400 * 86400])
def test_a_live_process_keeps_its_lock_whatever_the_clock_says(tmp_path: Path, seconds: int) -> None:
    path = tmp_path / "x.lock"
    with ShardLock(path) as lock:
        moment = time.time() + seconds
        os.utime(path, (moment, moment))
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            ShardLock(path).__enter__()
        lock.check()
    assert not path.exists()


@pytest.mark.parametrize("seconds", [-2 * EXPIRY, 2 * EXPIRY])
def test_a_lock_of_another_host_does_not_outlive_a_clock_set_back(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "x.lock"
    path.write_text(json.dumps({"token": "t", "host": f"not-{socket.gethostname()}", "pid": 1, "started": "1"}))
    with pytest.raises(LockedError):
        ShardLock(path).__enter__()
    moment = time.time() + seconds
    os.utime(path, (moment, moment))
    with ShardLock(path):
        pass


def test_rows_from_the_future_do_not_hide_what_was_written_since(tmp_path: Path) -> None:
    """File names carry no shard: whoever wrote last counts, also where its clock was behind."""
    make_video(tmp_path / "a.mp4")
    dataset = write_dataset(tmp_path / "raw.json", [make_record("a.mp4", id="a")])

    def choose(signal: Literal["residual", "motion"], num_shards: int) -> int:
        reports = []
        for shard in range(num_shards):
            report = stage1.run(
                Stage1Config(
                    dataset_path=dataset, out_root=tmp_path / "out", media_root=tmp_path, num_workers=0,
                    sequence_length=8, keep_frames_equiv=2, square_size=64, signal=signal,
                    num_shards=num_shards, shard_id=shard,
                )
            )  # fmt: skip
            assert isinstance(report, Report)
            reports.append(report.computed)
        return sum(reports)

    assert choose("residual", 1) == 1
    ledger = tmp_path / "out" / "ledger" / "visidx.shard00of01.parquet"
    future = (datetime.now(timezone.utc) + timedelta(days=400)).isoformat(timespec="microseconds")
    read_ledger(ledger).with_columns(finished_at=pl.lit(future)).write_parquet(ledger)
    assert choose("motion", 2) == 1
    assert choose("motion", 2) == 0
    assert choose("residual", 1) == 1
    (meta,) = (tmp_path / "out").glob("*.meta.json")
    assert json.loads(meta.read_text())["signal"] == "residual"
    assert choose("residual", 1) == 0
