"""kill -9 at any instant: the restart ends with the same bytes, does only what is left, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ov_model import precompute, stage1, stage2
from ov_model.lake.ledger import VOLATILE, read_ledger
from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.factories import make_record, make_video, write_dataset

VIDEOS, WORKERS = 14, 2
GEOMETRY = ["--square_size", "64"]
STAGE1 = [*GEOMETRY, "--sequence_length", "8", "--keep_frames_equiv", "2"]
STAGE2 = [*GEOMETRY, "--T", "8", "--num_images", "2"]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """`ov` in a process group of its own."""
    command = [sys.executable, "-m", "ov_model.cli", *map(str, arguments)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """kill -9 the command (not its workers) as soon as `ready` says so; its workers must end by themselves."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline, "the command never came as far as the test wants"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _group_lives(process.pid):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


def _group_lives(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def lines(path: Path) -> int:
    """Whole lines of a journal."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the ledgers; a temporary file is a failure."""
    found = {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "ledger" not in p.parts
    }
    assert not [name for name in found if name.endswith(".tmp")]
    return found


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    records = []
    for i in range(VIDEOS):
        make_video(tmp_path / f"v{i}.mp4", width=320, height=192, frames=40, seed=i, pattern="pan")
        records.append(make_record(f"v{i}.mp4", id=f"v{i}"))
    return write_dataset(tmp_path / "raw.json", records)


def stage1_config(dataset: Path, out: Path) -> Stage1Config:
    return Stage1Config(
        dataset_path=dataset, out_root=out, media_root=dataset.parent, num_workers=WORKERS,
        square_size=64, sequence_length=8, keep_frames_equiv=2,
    )  # fmt: skip


def stage2_config(dataset: Path, visidx: Path, out: Path) -> Stage2Config:
    return Stage2Config(
        input_dataset=dataset, visidx_root=visidx, out_image_root=out / "images", out_jsonl=out / "train.jsonl",
        media_root=dataset.parent, num_workers=WORKERS, square_size=64, T=8, num_images=2,
    )  # fmt: skip


def test_stage1_and_stage2_killed_and_started_again(dataset: Path, tmp_path: Path) -> None:
    root = ["--media_root", tmp_path, "--num_workers", WORKERS]
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    journal = killed / "visidx" / "ledger" / "visidx.shard00of01.journal.jsonl"
    process = start("stage1", "--dataset_path", dataset, "--out_root", killed / "visidx", *STAGE1, *root)
    kill_when(process, lambda: lines(journal) >= 4)
    done = lines(journal)
    report = stage1.run(stage1_config(dataset, killed / "visidx"))
    assert not isinstance(report, list)
    assert (report.ok, report.failed) == (VIDEOS, 0)
    assert 0 < report.computed <= VIDEOS - done + WORKERS

    journal = killed / "pack" / "images" / "ledger" / "mosaics.shard00of01.journal.jsonl"
    jsonl = killed / "pack" / "train.jsonl"
    arguments = ["--input_dataset", dataset, "--visidx_root", killed / "visidx", "--out_jsonl", jsonl]
    process = start("stage2", *arguments, "--out_image_root", killed / "pack" / "images", *STAGE2, *root)
    kill_when(process, lambda: lines(journal) >= 4)
    done = lines(journal)
    assert not jsonl.exists()
    report, _ = stage2.run(stage2_config(dataset, killed / "visidx", killed / "pack"))
    assert report.ok == VIDEOS
    assert 0 < report.computed <= VIDEOS - done + WORKERS

    stage1.run(stage1_config(dataset, calm / "visidx"))
    stage2.run(stage2_config(dataset, calm / "visidx", calm / "pack"))
    ours, theirs = outputs(killed), outputs(calm)
    rewritten = "pack/train.jsonl"
    assert ours.pop(rewritten).replace(b"/killed/", b"/calm/") == theirs.pop(rewritten)
    assert ours == theirs
    for ledger in ("visidx/ledger/visidx", "pack/images/ledger/mosaics"):
        a, b = (read_ledger(folder / f"{ledger}.shard00of01.parquet").drop(VOLATILE) for folder in (killed, calm))
        assert a.equals(b)


def test_precompute_killed_and_started_again(dataset: Path, tmp_path: Path) -> None:
    videos = [{"video": str(tmp_path / f"v{i}.mp4"), "key": f"v{i}"} for i in range(VIDEOS)]
    jsonl = write_dataset(tmp_path / "videos.jsonl", videos)
    arguments = ["--jsonl", jsonl, *GEOMETRY, "--seq_len_frames", "8", "--num_images", "2", "--num_workers", WORKERS]
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    journal = killed / "ledger" / "assets.shard00of01.journal.jsonl"
    process = start("precompute", "--out_root", killed, *arguments)
    kill_when(process, lambda: lines(journal) >= 4)
    done = lines(journal)
    config = PrecomputeConfig(
        jsonl=jsonl, out_root=killed, num_workers=WORKERS, square_size=64, seq_len_frames=8, num_images=2
    )
    report = precompute.run(config)
    assert (report.ok, report.failed) == (VIDEOS, 0)
    assert 0 < report.computed <= VIDEOS - done + WORKERS
    precompute.run(replace(config, out_root=calm))
    ours, theirs = outputs(killed), outputs(calm)
    for found in (ours, theirs):
        for name in [name for name in found if name.endswith("meta.json")]:
            found[name] = json.dumps({**json.loads(found[name]), "created_at": "", "stats": {}}).encode()
    assert len(ours) == VIDEOS * 6
    assert ours == theirs
    a, b = (read_ledger(folder / "ledger" / "assets.shard00of01.parquet").drop(VOLATILE) for folder in (killed, calm))
    assert a.equals(b)


def test_jsonl_killed_while_it_is_written(tmp_path: Path) -> None:
    records = [make_record(None, id=f"t{i}", kind="text", answer="word " * 40) for i in range(20000)]
    dataset = write_dataset(tmp_path / "raw.jsonl", records)
    (tmp_path / "visidx").mkdir()
    arguments = ["--input_dataset", dataset, "--visidx_root", tmp_path / "visidx", *STAGE2]
    out = tmp_path / "out"
    command = ["stage2", *arguments, "--out_jsonl", out / "train.jsonl", "--out_image_root", out / "images"]
    warm = start(*command)
    assert warm.wait() == 0
    expected = (out / "train.jsonl").read_bytes()
    assert expected.count(b"\n") == 20000
    (out / "train.jsonl").unlink()
    process = start(*command)
    kill_when(process, lambda: any(out.glob(".train.jsonl*.tmp")))
    assert not (out / "train.jsonl").exists()
    assert start(*command).wait() == 0
    assert (out / "train.jsonl").read_bytes() == expected
    assert not list(out.glob(".*"))
    assert json.loads(expected.splitlines()[7])["id"] == "t7"
