"""kill -9 at any instant: the restart ends with the same bytes, does only what is left, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ov_model.lake.ledger import read_ledger
from tests.factories import make_record, write_dataset
from tests.faults.processes import cpu_time, lines, ov
from tests.faults.stages import TOOLS, VIDEOS, WORKERS, Playground


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground.make(tmp_path_factory.mktemp("kill"))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_killed_command_started_again_does_what_is_left(playground: Playground, tmp_path: Path, tool: str) -> None:
    out = tmp_path / "out"
    killed = playground.start(tool, out)
    killed.wait_until(lambda: playground.under_way(tool, out))
    killed.kill()
    done = lines(playground.journal(tool, out))
    assert not (out / "train.jsonl").exists()
    again = playground.start(tool, out).finish()
    computed = int(again.partition("computed now")[2].split()[1])
    assert 0 < computed <= VIDEOS - done + WORKERS
    playground.expect_as_undisturbed(tool, out)


@pytest.mark.parametrize(("tool", "every"), [*((tool, False) for tool in TOOLS), ("stage1", True)])
def test_a_killed_worker_costs_no_sample(playground: Playground, tmp_path: Path, tool: str, every: bool) -> None:
    out = tmp_path / "out"
    run = playground.start(tool, out)
    run.wait_until(lambda: playground.under_way(tool, out))
    workers = sorted(run.alive("multiprocessing.spawn"), key=cpu_time)
    for worker in workers if every else workers[-1:]:
        os.kill(worker, signal.SIGKILL)
    run.finish()
    run.expect_nobody()
    playground.expect_as_undisturbed(tool, out)
    ledger = playground.journal(tool, out).parent.glob("*.parquet")
    assert max(read_ledger(next(ledger))["attempts"]) == 2


def test_jsonl_killed_while_it_is_written(tmp_path: Path) -> None:
    records = [make_record(None, id=f"t{i}", kind="text", answer="word " * 200) for i in range(5000)]
    dataset = write_dataset(tmp_path / "raw.jsonl", records)
    (tmp_path / "visidx").mkdir()
    out = tmp_path / "out"
    command = ["stage2", "--input_dataset", dataset, "--visidx_root", tmp_path / "visidx", "--square_size", 64]
    command += ["--T", 8, "--num_images", 2, "--out_jsonl", out / "train.jsonl", "--out_image_root", out / "images"]
    ov(*command).finish()
    expected = (out / "train.jsonl").read_bytes()
    assert expected.count(b"\n") == 5000
    (out / "train.jsonl").unlink()
    killed = ov(*command)
    killed.wait_until(lambda: any(out.glob(".train.jsonl*.tmp")))
    killed.kill()
    assert not (out / "train.jsonl").exists()
    ov(*command).finish()
    assert (out / "train.jsonl").read_bytes() == expected
    assert not list(out.glob(".*"))
    assert json.loads(expected.splitlines()[7])["id"] == "t7"
