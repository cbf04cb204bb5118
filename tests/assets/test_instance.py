"""The demo and Dagster's command line on a real instance, in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from ov_assets.environment import PROJECT, default_dagster_home, lake_root
from ov_model.demo import write_raw_dataset

SHARDED = ("raw_videos", "visidx", "mosaics", "training_jsonl")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An instance's folder with the project's settings, and a lake beside it, both named in the environment."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(default_dagster_home() / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    return folder


def run(command: Sequence[str]) -> str:
    """What a command of this environment prints; it must succeed."""
    program = [sys.executable, *command] if command[0] == "-m" else [str(Path(sys.executable).parent / command[0])]
    arguments = [] if command[0] == "-m" else list(command[1:])
    result = subprocess.run(
        [*program, *arguments],
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def materialize(asset: str, partition: str | None = None) -> str:
    chosen = ["--select", asset] + (["--partition", partition] if partition else [])
    return run(["dagster", "asset", "materialize", "-m", "ov_assets.definitions", *chosen])


def materialized(stage: str) -> set[str]:
    with dg.DagsterInstance.get() as instance:
        return set(instance.get_materialized_partitions(dg.AssetKey(["demo", stage])))


@pytest.mark.usefixtures("home")
def test_the_demo_makes_a_training_set_and_the_second_run_decodes_nothing():
    first = run(["-m", "ov_assets.demo", "--data"])
    assert "8 videos decoded" in first
    assert first.count("all well") == 3
    assert (lake_root() / "demo" / "train.jsonl").is_file()
    files = {path: path.read_bytes() for path in lake_root().rglob("*.jsonl")}
    second = run(["-m", "ov_assets.demo", "--data"])
    assert "0 videos decoded" in second
    assert files == {path: path.read_bytes() for path in lake_root().rglob("*.jsonl")}
    for stage in SHARDED:
        assert materialized(stage) == {"shard00of02", "shard01of02"}


@pytest.mark.usefixtures("home")
def test_each_sharded_asset_from_the_command_line_and_again_cached():
    write_raw_dataset(lake_root() / "raw" / "demo")
    materialize("demo/records")
    every = ",".join(f"demo/{stage}" for stage in SHARDED)
    said = materialize(every, "shard00of02")
    assert [f"demo/{stage}: 6 of 6 " in said for stage in SHARDED] == [True] * 4
    assert "demo/visidx: 0 of 6 samples computed; content unchanged" in materialize("demo/visidx", "shard00of02")
    assert [materialized(stage) for stage in SHARDED] == [{"shard00of02"}] * 4
