"""kill -9 of an operator's tool before one of its renames or removals: started again, it ends as if undisturbed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ov_model import stage1
from ov_model.lake.dataset import Dataset
from ov_model.lake.ledger import VOLATILE, read_ledger
from ov_model.ops.adopt import adopt_stage1
from ov_model.ops.gc import collect
from ov_model.ops.remove import What, remove
from ov_model.ops.reshard import reshard
from ov_model.ops.verify import verify
from tests.factories import make_record, make_video, write_dataset
from tests.lake.lanes import files, lane
from tests.ops.configs import stage1_config

KILL = """
import os, signal, sys
left = int(sys.argv[1])
def counted(call):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped
os.replace, os.unlink = counted(os.replace), counted(os.unlink)
from ov_model.cli import main
main(sys.argv[2:])
"""


def killed(before: int, *arguments: object) -> bool:
    """Whether `ov` was killed before its rename or removal number `before`, rather than coming to its end."""
    command = [sys.executable, "-c", KILL, str(before), *map(str, arguments)]
    code = subprocess.run(command, check=False, capture_output=True).returncode
    assert code in (0, 3, -9)
    return code == -9


def run_all(dataset: Dataset) -> int:
    """Run the whole lane; how many media were looked at."""
    dataset.index_records()
    computed = 0
    for shard in dataset.shards:
        reports = [dataset.raw_videos(shard), *dataset.visidx_and_mosaics(shard), dataset.training_jsonl(shard)]
        computed += sum(report.computed for report in reports)
    dataset.train_jsonl()
    return computed


@pytest.fixture
def made(tmp_path: Path) -> Dataset:
    for i in range(4):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(4)] + [make_record(None, id="t", kind="text")]
    dataset = lane(tmp_path, records, num_shards=2, paths="relative")
    run_all(dataset)
    return dataset


def copies(dataset: Dataset, step: int) -> Iterator[tuple[int, Dataset]]:
    """Copies of a lake, each to be disturbed at a later instant."""
    for before in range(0, 10_000, step):
        root = dataset.root.with_name(f"lake{before}")
        shutil.copytree(dataset.root, root)
        yield before, Dataset(replace(dataset.spec, root=root))


def state(dataset: Dataset) -> tuple[dict[str, bytes], dict[str, list[tuple[object, ...]]]]:
    """Every file but tombstones (they carry the time), and every ledger's rows."""
    kept = {name: data for name, data in files(dataset.root).items() if name != "records/removed.jsonl"}
    assert not [path for path in dataset.root.rglob("*") if path.suffix in (".tmp", ".lock")]
    ledgers = sorted((dataset.root / "ledger").glob("*.parquet"))
    return kept, {path.name: read_ledger(path).sort("row", "key").drop(VOLATILE).rows() for path in ledgers}


def test_reshard(made: Dataset) -> None:
    points = 0
    for before, dataset in copies(made, step=11):
        was_killed = killed(before, "reshard", dataset.root, 3)
        reshard(dataset.root, 3)
        moved = Dataset(replace(dataset.spec, num_shards=3))
        if before == 0:
            expected = state(moved)
        assert state(moved) == expected, before
        assert run_all(moved) == 0, before
        points += was_killed
        if not was_killed:
            break
    assert points >= 4


def test_a_run_instead_of_the_killed_reshard_decodes_nothing_either(made: Dataset) -> None:
    for before, dataset in copies(made, step=23):
        if not killed(before, "reshard", dataset.root, 3):
            break
        run_all(Dataset(replace(dataset.spec, num_shards=3)))
        assert verify(dataset.root, hashes=True).faults == []
        reshard(dataset.root, 3)
        assert run_all(Dataset(replace(dataset.spec, num_shards=3))) == 0


def test_remove(made: Dataset) -> None:
    points = 0
    for before, dataset in copies(made, step=7):
        was_killed = killed(before, "remove", dataset.root, "v1")
        remove(dataset.root, What(samples=("v1",)))
        if before == 0:
            expected = state(dataset)
        assert state(dataset) == expected, before
        assert not any(b'"v1"' in data for name, data in expected[0].items() if name != "records/rows.parquet")
        assert run_all(dataset) == 0
        points += was_killed
        if not was_killed:
            break
    assert points >= 2


def test_gc(made: Dataset) -> None:
    wider = Dataset(replace(made.spec, num_shards=3))
    run_all(wider)
    points = 0
    for before, dataset in copies(made, step=11):
        was_killed = killed(before, "gc", dataset.root, "--yes")
        collect(dataset.root, dry_run=False)
        if before == 0:
            expected = state(dataset)
        assert state(dataset) == expected, before
        assert run_all(Dataset(replace(dataset.spec, num_shards=3))) == 0
        points += was_killed
        if not was_killed:
            break
    assert points >= 2


def test_verify_repair(made: Dataset) -> None:
    for path in sorted((made.root / "visidx").glob("*.npy"))[:3]:
        path.unlink()
    points = 0
    for before, dataset in copies(made, step=3):
        was_killed = killed(before, "verify", dataset.root, "--repair")
        verify(dataset.root, repair=True)
        assert run_all(dataset) > 0, before
        if before == 0:
            expected = state(dataset)
        assert state(dataset) == expected, before
        points += was_killed
        if not was_killed:
            break
    assert points >= 2


def test_adopt(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    for i in range(3):
        make_video(reference / f"v{i}.mp4", seed=i)
    write_dataset(reference / "raw.json", [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(3)])
    stage1.run(stage1_config(reference))
    shutil.rmtree(reference / "visidx" / "ledger")
    points = 0
    for before in range(100):
        root = tmp_path / f"copy{before}"
        shutil.copytree(reference, root)
        options = ("--dataset_path", root / "raw.json", "--out_root", root / "visidx", "--media_root", root)
        sizes = ("--square_size", 64, "--sequence_length", 8, "--keep_frames_equiv", 2, "--num_workers", 0)
        was_killed = killed(before, "adopt", "stage1", *options, *sizes)
        adopted = adopt_stage1(stage1_config(root))
        assert (adopted.adopted + adopted.already, adopted.problems) == (3, []), before
        report = stage1.run(stage1_config(root))
        assert not isinstance(report, list)
        assert (report.reused, report.computed) == (3, 0), before
        assert not [path for path in root.rglob("*") if path.suffix in (".tmp", ".lock")]
        points += was_killed
        if not was_killed:
            break
    assert points >= 1
