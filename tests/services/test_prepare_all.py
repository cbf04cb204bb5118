"""`ov benchmark prepare` as users run it: real command, huggingface_hub, datasets, lmms-eval, and a hub beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ov_model.eval.benchmarks import Places, find_benchmark, the_eight
from tests.eval.fixtures import fixture, table
from tests.eval.hub import TOKEN, LocalHub, hub

EXTRAS = ("mlvu_dev", "egoschema", "lvbench", "mmvu_val")


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with hub() as running:
        yield running


def ov(local: LocalHub, home: Path, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ov_model.cli", "benchmark", "prepare", *arguments, "--home", str(home)]
    return subprocess.run(command, env=local.environment(home, token), capture_output=True, text=True, check=False)


def stamps(home: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}


def listed(name: str, home: Path) -> list[dict]:
    return [json.loads(line) for line in Places(find_benchmark(name), home).videos_jsonl.read_text().splitlines()]


def test_all_goes_on_past_a_gated_one_and_later_adds_it_alone(local: LocalHub, tmp_path: Path) -> None:
    made = {benchmark.name: fixture(benchmark.name, tmp_path / "clips") for benchmark in the_eight()}
    for name, entry in made.items():
        local.add(entry, gated=name == "longvideobench")
    home = tmp_path / "home"

    first = ov(local, home, "all", token=TOKEN)
    assert first.returncode == 3, first.stderr
    assert first.stdout.count("prepared ") == 7
    assert first.stdout.count("failed: AccessError") == 1
    assert f"{local.url}/datasets/longvideobench/LongVideoBench" in first.stdout
    assert "hf auth login" in first.stdout
    assert not Places(find_benchmark("longvideobench"), home).offline.joinpath("dataset").exists()

    before = stamps(home)
    local.requests.clear()
    local.repos["longvideobench/LongVideoBench"].accepted.add(TOKEN)
    second = ov(local, home, "all", token=TOKEN)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("already there") == 7
    assert {path: stamp for path, stamp in stamps(home).items() if path in before} == before
    assert all("LongVideoBench" in path for _, path, _ in local.requests)

    for name, entry in made.items():
        rows = listed(name, home)
        assert len(rows) == entry.videos, name
        assert sum(row["n"] for row in rows) == entry.questions, name
        assert all(row["exists"] for row in rows), name
        assert len({row["key"] for row in rows}) == len(rows), name
    keys = {row["key"] for row in listed("mvbench", home)}
    assert {"clevrer__video_validation__video_10009", "perception__videos__video_10009", "star_1"} <= keys
    frames = [row for row in listed("mvbench", home) if Path(row["video"]).is_dir()]
    assert [row["task"] for row in frames] == ["mvbench_episodic_reasoning"]


def test_the_extras_are_prepared_by_name(local: LocalHub, tmp_path: Path) -> None:
    made = {name: fixture(name, tmp_path / "clips") for name in EXTRAS}
    for entry in made.values():
        local.add(entry)
    done = ov(local, tmp_path / "home", *EXTRAS)
    assert done.returncode == 0, done.stdout
    for name, entry in made.items():
        rows = listed(name, tmp_path / "home")
        assert [len(rows), sum(row["n"] for row in rows)] == [entry.videos, entry.questions]


def test_videos_that_no_archive_holds_are_listed_as_missing(local: LocalHub, tmp_path: Path) -> None:
    entry = fixture("videomme", tmp_path / "clips")
    rows = pl.read_parquet(entry.files["videomme/test-00000-of-00001.parquet"]).to_dicts()
    entry.files["videomme/test-00000-of-00001.parquet"] = table([*rows, {**rows[0], "videoID": "lost"}])
    local.add(entry)
    home = tmp_path / "home"
    done = ov(local, home, "videomme")
    assert done.returncode == 3, done.stderr
    assert str(home / "videomme/data/lost.mp4") in done.stdout
    assert listed("videomme", home) == [
        {
            "video": str(home / f"videomme/data/{key}.mp4"),
            "key": key,
            "task": "videomme",
            "split": "test",
            "doc_id": first,
            "n": n,
            "exists": key != "lost",
        }
        for key, first, n in (("fFjv93ACGo8", 0, 2), ("N1cdUjctpG8", 2, 2), ("lost", 4, 1))
    ]


def test_none_prepared_is_exit_code_1(local: LocalHub, tmp_path: Path) -> None:
    assert ov(local, tmp_path / "home", "tomato", "nextqa").returncode == 1


def test_a_data_set_that_lmms_eval_cannot_read_is_an_error_with_its_words(local: LocalHub, tmp_path: Path) -> None:
    entry = fixture("videomme", tmp_path / "clips")
    entry.files["videomme/test-00000-of-00001.parquet"] = table([{"other": 1}])
    local.add(entry)
    done = ov(local, tmp_path / "home", "videomme")
    assert done.returncode == 1
    assert "lmms-eval cannot list its videos" in done.stdout
    assert "KeyError" in done.stdout


def test_a_killed_download_goes_on_in_the_next_process(local: LocalHub, tmp_path: Path) -> None:
    entry = fixture("videomme", tmp_path / "clips")
    entry.files["videos_chunked_00.zip"] = os.urandom(60 << 20)
    local.add(entry)
    local.hold("*/videos_chunked_00.zip", after=45 << 20)
    home = tmp_path / "home"
    command = [sys.executable, "-m", "ov_model.cli", "benchmark", "prepare", "videomme", "--home", str(home)]
    process = subprocess.Popen(command, env=local.environment(home), start_new_session=True)
    archives = Places(find_benchmark("videomme"), home).archives
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size >= 20 << 20 for part in archives.glob(".*.partial")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = next(archives.glob(".*.partial")).stat().st_size
    local.heal()
    local.requests.clear()
    done = ov(local, home, "videomme")
    assert "cannot be read as an archive" in done.stdout
    assert f"bytes={kept}-" in [asked for _, path, asked in local.requests if path.endswith("videos_chunked_00.zip")]
