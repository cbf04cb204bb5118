"""A dataset's lane in Dagster, its processes killed or interrupted: the next run makes it whole, all books agree."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from ov_assets.components import VideoDataset
from ov_assets.components.lane import Lane
from ov_assets.environment import default_dagster_home
from ov_assets.versions import data_version, last_data_version
from ov_model.lake.dataset import Dataset
from ov_model.lake.files import hash_file
from ov_model.lake.layout import ledger_path
from ov_model.lake.ledger import VOLATILE, read_ledger, summarize
from tests.assets.lanes import SHARDED, TINY
from tests.factories import make_record, make_video, write_dataset
from tests.faults.processes import Running, cpu_time, expect_tidy, lines, outputs

VIDEOS = 14
SHARDS = ("shard00of02", "shard01of02")
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from tests.faults.test_lanes import lane

assets = lane(Path("RAW"), Path(__file__).parent / "lake").definitions().assets
forkserver = {"start_method": {"forkserver": {}}}
defs = dg.Definitions(assets=assets, executor=dg.multiprocess_executor.configured(forkserver))
"""
BACKFILL = """
mutation ($keys: [AssetKeyInput!], $shards: [String!]) {
  launchPartitionBackfill(backfillParams: {assetSelection: $keys, partitionNames: $shards}) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def lane(folder: Path, lake: Path) -> Lane:
    """The lane of the raw dataset in `folder`, in another folder's lake."""
    attributes = {
        "dataset_path": str(folder / "raw.json"),
        "media_root": str(folder),
        "root": str(lake / "tiny"),
        "num_shards": 2,
        "workers": 2,
        "geometry": TINY,
        "paths": "relative",
    }
    return VideoDataset.from_attributes_dict(attributes=attributes).lane("tiny", folder)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset, and in `calm` the lake that an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("raw")
    names = [f"v{number}" for number in range(VIDEOS)]
    for seed, name in enumerate(names):
        make_video(folder / f"{name}.mp4", width=320, height=192, frames=40, seed=seed, pattern="pan")
    write_dataset(folder / "raw.json", [make_record(f"{name}.mp4", id=name) for name in names])
    dataset: Dataset = lane(folder, folder / "calm").dataset
    dataset.index_records()
    for shard in dataset.shards:
        dataset.raw_videos(shard)
        dataset.visidx_and_mosaics(shard)
        dataset.training_jsonl(shard)
    return folder


@pytest.fixture
def folder(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Definitions over the raw dataset, for a lake beside them, and an instance with the project's settings."""
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace("RAW", str(raw)))
    home = tmp_path / "home"
    home.mkdir()
    settings = (default_dagster_home() / "dagster.yaml").read_text()
    assert settings.count("start_timeout_seconds") == 1
    quicker = "poll_interval_seconds: 3\n  start_timeout_seconds"
    (home / "dagster.yaml").write_text(settings.replace("start_timeout_seconds", quicker))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    with dg.DagsterInstance.get() as instance:  # two processes that find no tables both make them, and fail
        instance.all_instigator_state()
    return tmp_path


def dagster(*command: object) -> Running:
    program, *arguments = command
    return Running([Path(sys.executable).parent / str(program), *arguments])


def materialize(folder: Path, stages: Sequence[str], shard: str | None = None) -> Running:
    chosen = ",".join(f"tiny/{stage}" for stage in stages)
    partition = ["--partition", shard] if shard else []
    return dagster("dagster", "asset", "materialize", "-f", folder / "definitions.py", "--select", chosen, *partition)


def journal(folder: Path, stage: str = "visidx", shard: str = SHARDS[0]) -> Path:
    return folder / "lake" / "tiny" / "ledger" / f"{stage}.{shard}.journal.jsonl"


def child(parent: int) -> int:
    """The step's process: the child of the fork server that has workers of its own, or is in the middle of a step."""
    out = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in out.splitlines()]
    below = {parent}
    for _ in range(6):
        below |= {pid for pid, above in pairs if above in below}
    (step,) = {above for pid, above in pairs if pid in below and "multiprocessing.spawn" in command(pid)} - {parent}
    return step


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def expect_agreement(folder: Path, raw: Path, shards: Sequence[str] = SHARDS) -> None:
    """The lake is the undisturbed one; Dagster says of each shard what its ledger says; nothing runs or waits."""
    ours, theirs = (outputs(lake / "tiny") for lake in (folder / "lake", raw / "calm"))
    expect_tidy(folder / "lake")
    assert {name for name in ours if theirs.get(name) != ours[name]} == set()
    assert len(shards) < len(SHARDS) or ours.keys() == theirs.keys()
    dataset: Dataset = lane(raw, folder / "lake").dataset
    with dg.DagsterInstance.get() as instance:
        for shard in dataset.shards:
            for stage in SHARDED if shard.key in shards else ():
                path = ledger_path(dataset.root, stage, shard)
                undisturbed = read_ledger(ledger_path(raw / "calm" / "tiny", stage, shard))
                assert read_ledger(path).drop(VOLATILE).equals(undisturbed.drop(VOLATILE))
                assert all((dataset.root / name).is_file() for names in undisturbed["outputs"] for name in names)
                if stage == "training_jsonl":
                    expected = hash_file(dataset.root / "jsonl" / f"{shard.key}.jsonl")[:16]
                else:
                    counts = {"computed": 0, "reused": 0, "seconds": 0.0, "config_hash": "", "ledger": path}
                    report = summarize(read_ledger(path), stage=stage, **counts)  # pyright: ignore[reportArgumentType]
                    expected = data_version(dataset, report, shard)
                assert last_data_version(instance, dg.AssetKey(["tiny", stage]), shard.key) == expected, stage
        in_progress = dg.RunsFilter(statuses=[s for s in dg.DagsterRunStatus if s.value in _BUSY])
        assert [run.run_id for run in instance.get_runs(in_progress)] == []
        slots = instance.event_log_storage.get_concurrency_info("decode")
        assert (slots.active_slot_count, slots.pending_step_count, slots.assigned_step_count) == (0, 0, 0)


_BUSY = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


@pytest.mark.parametrize("victim", ["step", "worker", "run worker"])
def test_a_killed_process_and_the_next_run(folder: Path, raw: Path, victim: str) -> None:
    lane(raw, folder / "lake").dataset.index_records()
    run = materialize(folder, SHARDED, SHARDS[0])
    run.wait_until(lambda: lines(journal(folder)) >= 3)
    step = child(run.process.pid)
    if victim == "worker":
        os.kill(max(run.alive("multiprocessing.spawn"), key=cpu_time), signal.SIGKILL)
        run.finish()
    elif victim == "step":
        os.kill(step, signal.SIGKILL)
        assert "ChildProcessCrashException" in run.finish(1)
    else:
        run.kill()
        with dg.DagsterInstance.get() as instance:
            instance.report_run_failed(instance.get_runs(limit=1)[0])  # as the daemon's monitor does
    run.expect_nobody()
    materialize(folder, SHARDED, SHARDS[0]).finish()
    expect_agreement(folder, raw, SHARDS[:1])


def test_a_run_that_is_interrupted(folder: Path, raw: Path) -> None:
    lane(raw, folder / "lake").dataset.index_records()
    run = materialize(folder, SHARDED, SHARDS[0])
    run.wait_until(lambda: lines(journal(folder)) >= 3)
    os.killpg(run.process.pid, signal.SIGINT)
    run.process.communicate()
    assert run.process.returncode != 0
    run.expect_nobody()
    assert not list((folder / "lake").rglob("*.lock"))
    materialize(folder, SHARDED, SHARDS[0]).finish()
    expect_agreement(folder, raw, SHARDS[:1])


def test_two_runs_of_one_partition_never_both_write(folder: Path, raw: Path) -> None:
    lane(raw, folder / "lake").dataset.index_records()
    first, second = (materialize(folder, SHARDED, SHARDS[0]) for _ in range(2))
    said = [run.process.communicate()[0] for run in (first, second)]
    failed = [text for run, text in zip((first, second), said, strict=True) if run.process.returncode]
    assert len(failed) < 2
    assert all("LockedError" in text for text in failed)
    materialize(folder, SHARDED, SHARDS[0]).finish()
    expect_agreement(folder, raw, SHARDS[:1])


@pytest.mark.parametrize("victim", ["daemon", "run worker"])
def test_a_backfill_goes_on_after_a_kill(folder: Path, raw: Path, victim: str) -> None:
    lane(raw, folder / "lake").dataset.index_records()
    definitions = folder / "definitions.py"
    daemon = dagster("dagster-daemon", "run", "-f", definitions)
    keys = [{"path": ["tiny", stage]} for stage in SHARDED]
    asked = json.dumps({"keys": keys, "shards": SHARDS})
    launched = dagster("dagster-graphql", "-f", definitions, "-t", BACKFILL, "-v", asked).finish()
    assert "LaunchBackfillSuccess" in launched, launched
    daemon.wait_until(lambda: any(lines(journal(folder, shard=shard)) >= 2 for shard in SHARDS))
    os.kill(daemon.process.pid if victim == "daemon" else worker_of_run(), signal.SIGKILL)
    if victim == "daemon":
        daemon.process.wait()
        daemon.expect_nobody()
        daemon = dagster("dagster-daemon", "run", "-f", definitions)
    daemon.wait_until(lambda: backfill_status() not in (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING))
    assert backfill_status() == BulkActionStatus.COMPLETED_SUCCESS
    daemon.process.terminate()
    daemon.process.wait()
    daemon.expect_nobody()
    expect_agreement(folder, raw)


def worker_of_run() -> int:
    with dg.DagsterInstance.get() as instance:
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        (run, *_) = instance.get_runs(started)
        said = "\n".join(entry.message or entry.user_message for entry in instance.all_logs(run.run_id))
    found = re.search(r"Started process for run \(pid: (\d+)\)", said)
    assert found, said
    return int(found[1])


def backfill_status() -> BulkActionStatus:
    with dg.DagsterInstance.get() as instance:
        (backfill,) = instance.get_backfills()
        return backfill.status
