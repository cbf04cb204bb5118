"""A dataset's shards on two Ray nodes: the bytes of a run on this machine alone, also where a node is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from ov_assets.components import VideoDataset
from ov_assets.components.lane import Lane
from ov_assets.environment import PROJECT, default_dagster_home
from ov_model.lake.layout import Shard, shard_of
from ov_model.lake.ledger import VOLATILE, read_ledger
from tests.assets.lanes import TINY
from tests.conftest import require_or_skip
from tests.factories import make_record, make_video, write_dataset
from tests.services.ray_cluster import RayCluster, RayNode, ancestors, descendants

SHARDS, CLIPS, CPUS = 4, 12, 1
PATIENCE = 1500
LOCATION = """
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.components import VideoDataset
from ov_assets.executor import engine

lane = VideoDataset.from_attributes_dict(attributes={attributes!r}).lane("clips", Path("/"))
defs = dg.Definitions.merge(lane.definitions(), dg.Definitions(executor=engine().definition()))


def shards() -> dg.JobDefinition:
    return defs.resolve_job_def("clips_shards")


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        for key in sys.argv[1:]:
            tags = {{"dagster/partition": key}}
            assert dg.execute_job(dg.reconstructable(shards), instance, tags=tags).success
"""


@dataclass
class Place:
    """A raw dataset, a lake on it and an instance of Dagster; runs are processes."""

    folder: Path
    raw: Path
    engine: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "home").mkdir(parents=True)
        shutil.copy(default_dagster_home() / "dagster.yaml", self.folder / "home")
        with dg.DagsterInstance.from_config(str(self.folder / "home")) as instance:  # two runs would both make tables
            instance.all_instigator_state()
        self.location.write_text(LOCATION.format(attributes=self.attributes))
        self.lane.dataset.index_records()

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the dataset."""
        return {
            "dataset_path": str(self.raw / "raw.json"),
            "media_root": str(self.raw),
            "root": str(self.folder / "lake" / "clips"),
            "num_shards": SHARDS,
            "workers": CPUS,
            "geometry": TINY,
        }

    @property
    def lane(self) -> Lane:
        """The dataset's assets."""
        return VideoDataset.from_attributes_dict(attributes=self.attributes).lane("clips", self.folder)

    @property
    def root(self) -> Path:
        """The dataset's folder in the lake."""
        return self.lane.dataset.root

    @property
    def location(self) -> Path:
        """Where every process finds the definitions."""
        return self.folder / "location.py"

    def start(self, *shards: Shard) -> subprocess.Popen[bytes]:
        """Every sharded asset of these shards, a run for each, one after the other."""
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.folder / "home"),
            "OV_EXECUTOR": str(self.engine),
            "RAY_ADDRESS": self.address,
            "PYTHONPATH": str(PROJECT),
        }
        command = [sys.executable, str(self.location), *(shard.key for shard in shards)]
        with open(self.log(shards[0]), "wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def log(self, shard: Shard) -> Path:
        """What a process said."""
        return self.folder / f"{shard.key}.log"

    def end(self, process: subprocess.Popen[bytes], shard: Shard) -> None:
        """Wait for a process, whose runs must succeed."""
        assert process.wait(PATIENCE) == 0, self.log(shard).read_text()[-6000:]

    def events(self, kind: dg.DagsterEventType) -> int:
        """Events of a kind in all runs."""
        with dg.DagsterInstance.from_config(str(self.folder / "home")) as instance:
            return sum(len(instance.all_logs(run.run_id, kind)) for run in instance.get_runs())

    def working(self, above: int) -> bool:
        """Whether a process below `above` decodes a shard, has done some of its videos, and not all."""
        for shard in ALL:
            ledger = self.root / "ledger" / f"visidx.{shard.key}"
            try:
                owner = json.loads(ledger.with_name(f"{ledger.name}.lock").read_text())
                done = ledger.with_name(f"{ledger.name}.journal.jsonl").read_bytes().count(b"\n")
            except (FileNotFoundError, ValueError):
                continue
            if 2 <= done <= CLIPS - 4 and above in ancestors(int(owner["pid"])):
                return True
        return False


ALL = [Shard(index, SHARDS) for index in range(SHARDS)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, so many in each shard."""
    folder = tmp_path_factory.mktemp("raw")
    left = dict.fromkeys(range(SHARDS), CLIPS)
    records = []
    for number in count():
        name = f"clip{number}.mp4"
        if not any(left.values()):
            break
        if left[shard_of(name, SHARDS)]:
            left[shard_of(name, SHARDS)] -= 1
            make_video(folder / name, width=320, height=192, frames=32, seed=number, pattern="pan")
            records.append(make_record(name, id=name))
    write_dataset(folder / "raw.json", records)
    return folder


@pytest.fixture(scope="module")
def alone(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The lake as processes of this machine make it."""
    folder = tmp_path_factory.mktemp("alone")
    engine = folder / "processes.yaml"
    engine.write_text(
        "executor: multiprocess\nconfig: {start_method: {forkserver: {preload_modules: [ov_assets.components]}}}\n"
    )
    place = Place(folder / "place", raw, engine)
    try:
        place.end(place.start(*ALL), ALL[0])
    finally:
        place.stop()
    place.lane.dataset.train_jsonl()
    return place


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A head and one node, each with room for one shard's decoding at a time."""
    for module in ("ray", "dagster_ray"):
        if not _installed(module):
            require_or_skip("ray", f"{module} is not installed: make install EXTRAS=dagster,train,eval,ray,dev")
    folder = Path(tempfile.mkdtemp(prefix="ovray"))
    found = RayCluster(folder / "s")
    found.folder.mkdir()
    try:
        for _ in range(2):
            found.add_node(cpus=CPUS, memory_gb=12)
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


@pytest.fixture
def on_ray(raw: Path, cluster: RayCluster, tmp_path: Path) -> Iterator[Place]:
    """A lake to be made on the cluster, with the shipped settings but a shorter wait."""
    shipped = yaml.safe_load((PROJECT / "deploy" / "ray.yaml").read_text())
    engine = tmp_path / "ray.yaml"
    engine.write_text(yaml.safe_dump({**shipped, "retry_delay": 1}))
    place = Place(tmp_path / "place", raw, engine, cluster.address)
    yield place
    place.stop()


def test_a_node_is_lost_and_the_bytes_are_those_of_one_machine(
    on_ray: Place, cluster: RayCluster, alone: Place
) -> None:
    lost = cluster.nodes[1]
    halves = [ALL[:2], ALL[2:]]
    runs = [on_ray.start(*half) for half in halves]
    kill_while_working(on_ray, lost, runs)
    for run, half in zip(runs, halves, strict=True):
        on_ray.end(run, half[0])
    on_ray.lane.dataset.train_jsonl()
    assert lost.process.wait(60) != 0
    assert on_ray.events(dg.DagsterEventType.STEP_RESTARTED) >= 1
    assert on_ray.events(dg.DagsterEventType.STEP_FAILURE) == 0
    assert contents(on_ray) == contents(alone)
    assert not list(on_ray.root.rglob("*.tmp"))
    assert not list(on_ray.root.rglob("*.lock"))
    for ledger in sorted(alone.root.glob("ledger/*.parquet")):
        ours = read_ledger(on_ray.root / "ledger" / ledger.name)
        assert ours.drop(VOLATILE).equals(read_ledger(ledger).drop(VOLATILE)), ledger.name


def kill_while_working(place: Place, node: RayNode, runs: list[subprocess.Popen[bytes]]) -> None:
    """kill -9 of all that runs on a node as soon as a step there has done some of its videos, and not all."""
    raylet = node.raylet
    deadline = time.monotonic() + PATIENCE
    while not place.working(raylet):
        assert time.monotonic() < deadline, "no shard was ever decoded on the node"
        assert any(run.poll() is None for run in runs), "the runs ended before a node could be lost"
        time.sleep(0.01)
    for pid in [raylet, *descendants(raylet)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def contents(place: Place) -> dict[str, bytes]:
    """Every output but the ledgers; without times in metas, and without the lake's own place in JSONL."""
    found = {}
    for path in sorted(place.root.rglob("*")):
        if not path.is_file() or "ledger" in path.parts:
            continue
        data = path.read_bytes().replace(os.fsencode(place.root), b"LAKE")
        if path.name.endswith(".meta.json"):
            meta = json.loads(data)
            data = json.dumps({name: meta[name] for name in meta if name not in ("created_at", "timings")}).encode()
        found[str(path.relative_to(place.root))] = data
    assert any(name.endswith(".npy") for name in found)
    assert any(name.endswith(".jpg") for name in found)
    return found
