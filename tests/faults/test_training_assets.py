"""A training step killed or canceled anywhere, with real processes: nobody is left, one trainer a folder at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from ov_assets.environment import default_dagster_home
from ov_model.train.metrics import read_metrics
from tests.train.samples import write_codec_data

STEPS = 150
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from ov_assets.components import TrainingRun
from ov_assets.training import TrainingData

HERE = Path(__file__).parent
OVERRIDES = {"run.zero": 0, "optim.max_steps": STEPS, "optim.batch_size": 1, "run.save_every": 20}
stage = {"recipe": "tiny", "overrides": OVERRIDES}
options = {"data": "data", "projector": stage, "checkpoint": stage, "nproc": 2, "retry_delay": 1, "observe_every": 1}
data = TrainingData(dg.AssetKey(["data", "train_jsonl"]), HERE / "train.jsonl", (), ())
run = TrainingRun.from_attributes_dict(attributes=options).run("small", HERE, data)
defs = dg.Definitions(
    assets=run.definitions().assets,
    executor=dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}),
)
"""


class Materialization:
    """`dagster asset materialize` of the projector; its processes carry a mark in their environment."""

    def __init__(self, folder: Path) -> None:
        self.mark, self.folder = uuid.uuid4().hex, folder
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "dagster"),
                *("asset", "materialize", "-f", str(folder / "definitions.py"), "--select", "small/projector"),
            ],
            env=os.environ | {"OV_TEST_MARK": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def run(self) -> Path:
        """The run's folder, as soon as there is one."""
        homes = [path.parent for path in self.folder.glob("lake/small/projector/*/run.json")]
        found = [home for home in homes if not home.is_symlink()]
        assert len(found) < 2, "a second folder was begun"
        return found[0] if found else self.folder / "none"

    def steps(self) -> list[int]:
        """Steps in the order they were done, repeated ones included."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [int(line.split('"step": ')[1].split(",")[0]) for line in lines if line.endswith("}")]

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            assert self.process.poll() is None, (self.process.stdout or sys.stdin).read()[-3000:]
            assert time.monotonic() < deadline, "never came as far as the test wants"
            time.sleep(0.01)

    def alive(self, name: str = "") -> list[int]:
        """Processes of this materialization whose command line holds a name, this one's own among them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"OV_TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes()
                if marked and name in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                    found.append(int(folder.name))
            except (OSError, ProcessLookupError):
                continue
        return sorted(found)

    def ranks(self) -> list[int]:
        return [process for process in self.alive("ov_model.train.run") if process not in self.alive("train.agent")]

    def find(self, role: str) -> int:
        """The process of a role: worker (of the run), step, launcher, agent or rank."""
        if role == "worker":
            return self.process.pid
        if role == "step":
            (launcher,) = self.alive("ov_assets.training_process")
            return int(Path(f"/proc/{launcher}/stat").read_text().rsplit(")", 1)[1].split()[1])
        if role == "rank":
            return self.ranks()[-1]
        return self.alive({"launcher": "ov_assets.training_process", "agent": "train.agent"}[role])[0]

    def expect_nobody(self) -> None:
        deadline = time.monotonic() + 45
        while left := self.alive():
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.05)

    def watch(self) -> tuple[str, int]:
        """Its output when it has ended, and the most ranks that lived at once."""
        most = 0
        while self.process.poll() is None:
            most = max(most, len(self.ranks()))
            time.sleep(0.05)
        return (self.process.stdout or sys.stdin).read(), most


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_codec_data(tmp_path)
    text = DEFINITIONS.replace("STEPS", str(STEPS))
    (tmp_path / "definitions.py").write_text(text)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((default_dagster_home() / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    return tmp_path


def status(folder: Path) -> dg.DagsterRunStatus:
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        return run.status


@pytest.mark.parametrize("role", ["step", "launcher", "agent", "rank"])
def test_a_killed_process_is_replaced_and_training_goes_on(folder: Path, role: str) -> None:
    made = Materialization(folder)
    made.wait_until(lambda: len(made.steps()) >= 30)
    os.kill(made.find(role), signal.SIGKILL)
    output, most = made.watch()
    assert made.process.returncode == 0, output[-4000:]
    assert most <= 2, "two trainers at once"
    done = made.steps()
    assert done.count(1) == 1, "it began anew"
    assert [values["step"] for values in read_metrics(made.run / "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert (made.run / "export" / "mm_projector.bin").is_file()
    assert status(folder) == dg.DagsterRunStatus.SUCCESS
    made.expect_nobody()


def test_killing_the_runs_worker_leaves_nobody_and_the_next_run_goes_on(folder: Path) -> None:
    made = Materialization(folder)
    made.wait_until(lambda: len(made.steps()) >= 30)
    os.kill(made.find("worker"), signal.SIGKILL)
    again = Materialization(folder)  # at once, as a daemon may
    output, most = again.watch()
    made.expect_nobody()
    if again.process.returncode:
        assert "LockedError" in output, output[-4000:]
        again = Materialization(folder)
        output, most = again.watch()
    assert again.process.returncode == 0, output[-4000:]
    assert most <= 2
    assert again.steps().count(1) == 1, "it began anew"
    again.expect_nobody()


@pytest.mark.parametrize("asked", [True, False])
def test_a_canceled_run_leaves_nobody_and_is_not_tried_again(folder: Path, asked: bool) -> None:
    made = Materialization(folder)
    made.wait_until(lambda: len(made.steps()) >= 10)
    if asked:  # as the UI's Terminate does
        with dg.DagsterInstance.get() as instance:
            instance.report_run_canceling(instance.get_runs()[0])
    os.kill(made.process.pid, signal.SIGINT if asked else signal.SIGTERM)
    made.process.wait(60)
    made.expect_nobody()
    assert not (made.run / "export").exists()
    assert not (made.run / "train.lock").exists()
    assert status(folder) == (dg.DagsterRunStatus.CANCELED if asked else dg.DagsterRunStatus.FAILURE)


def test_a_second_run_on_the_same_folder_is_refused(folder: Path) -> None:
    made = Materialization(folder)
    made.wait_until(lambda: len(made.steps()) >= 5)
    ranks = made.ranks()
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    second = Materialization(folder)
    output, most = second.watch()
    assert most == 0
    assert second.process.returncode != 0
    assert "LockedError" in output
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    output, _ = made.watch()
    assert made.process.returncode == 0, output[-4000:]
    assert made.steps() == list(range(1, STEPS + 1))
    made.expect_nobody()
