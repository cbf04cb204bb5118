"""Training on two processes: the same losses as on one; killed anywhere, nothing stays and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ov_model.train.metrics import read_metrics
from tests.train.samples import ANSWERS, write_codec_data, write_mixed_data

SETTINGS = ("optim.max_steps=14", "run.save_every=4", "run.keep=2", "optim.batch_size=1")


class Run:
    """`ov train tiny` into a folder; its processes carry a mark in their environment."""

    def __init__(self, jsonl: Path, out: Path, *settings: str, nproc: int = 2) -> None:
        self.mark, self.out = uuid.uuid4().hex, out
        options = [part for setting in settings for part in ("--set", setting)]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ov_model.cli", "train", "tiny", "--data", str(jsonl), "--out", str(out)),
                *("--nproc", str(nproc), *options),
            ],
            env=os.environ | {"OV_TEST_MARK": self.mark},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def finish(self) -> None:
        _, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors[-3000:]

    def losses(self) -> list[float]:
        return [values["loss"] for values in read_metrics(self.out / "metrics.jsonl")]

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            assert self.process.poll() is None, (self.process.stderr or sys.stdin).read()[-3000:]
            assert time.monotonic() < deadline, "never came as far as the test wants"
            time.sleep(0.01)

    def alive(self) -> dict[int, str]:
        """Command lines of this run's processes, the launcher included, by process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"OV_TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, ProcessLookupError):
                continue
        return found

    def expect_nobody(self) -> None:
        deadline = time.monotonic() + 30
        while left := self.alive():
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_data(tmp_path_factory.mktemp("data"), 16)


@pytest.fixture(scope="module")
def whole(jsonl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of an undisturbed run with ZeRO-3 on two processes."""
    run = Run(jsonl, tmp_path_factory.mktemp("whole"), *SETTINGS)
    run.finish()
    return run.losses()


def test_sharded_training_equals_one_process(jsonl: Path, whole: list[float], tmp_path: Path) -> None:
    single = Run(jsonl, tmp_path / "single", *SETTINGS, "run.zero=0", "optim.accumulation=2", nproc=1)
    single.finish()
    zero2 = Run(jsonl, tmp_path / "zero2", *SETTINGS, "run.zero=2")
    zero2.finish()
    assert len(whole) == 14
    assert zero2.losses() == pytest.approx(single.losses(), abs=1e-4)
    assert whole == pytest.approx(single.losses(), abs=1e-4)


@pytest.mark.parametrize("zero", [2, 3])
def test_killed_and_resumed_equals_never_killed(jsonl: Path, whole: list[float], tmp_path: Path, zero: int) -> None:
    run = Run(jsonl, tmp_path / "run", *SETTINGS, f"run.zero={zero}")
    run.wait_until((tmp_path / "run/checkpoint-4/complete.json").exists)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    run.expect_nobody()
    assert not (tmp_path / "run" / "export").exists()
    again = Run(jsonl, tmp_path / "run", *SETTINGS, f"run.zero={zero}")
    again.finish()
    assert again.losses() == pytest.approx(whole, abs=1e-4 if zero == 2 else 1e-6)
    steps = (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n")
    assert steps < 2 * len(whole), "it began anew"
    again.expect_nobody()


@pytest.mark.parametrize(
    ("role", "told"),
    [("ov_model.train.agent", "it was killed"), ("ov_model.train.run", "rank [01] was killed by signal 9")],
)
def test_killing_agent_or_rank_fails_the_run_and_leaves_nobody(
    jsonl: Path, tmp_path: Path, role: str, told: str
) -> None:
    run = Run(jsonl, tmp_path / "run", *SETTINGS, "data.workers=1", "optim.max_steps=2000")
    run.wait_until(lambda: len(run.losses()) >= 2)
    victim = max(number for number, command in run.alive().items() if f"-m {role} " in command)
    os.kill(victim, signal.SIGKILL)
    _, errors = run.process.communicate(timeout=60)
    assert run.process.returncode == 1
    assert re.search(told, errors)
    run.expect_nobody()


def test_sigterm_ends_all_and_frees_the_folder(jsonl: Path, tmp_path: Path) -> None:
    run = Run(jsonl, tmp_path / "run", *SETTINGS, "optim.max_steps=2000")
    run.wait_until(lambda: len(run.losses()) >= 2)
    second = Run(jsonl, tmp_path / "run", *SETTINGS, "optim.max_steps=2000")
    _, errors = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert "being written by process" in errors
    run.process.terminate()
    assert run.process.wait(60) == 128 + signal.SIGTERM
    run.expect_nobody()
    assert not (tmp_path / "run" / "train.lock").exists()


def test_tiny_overfits_on_two_processes_and_answers(tmp_path: Path) -> None:
    jsonl = write_codec_data(tmp_path / "data")
    run = Run(jsonl, tmp_path / "run")
    started = time.monotonic()
    run.finish()
    assert time.monotonic() - started < 180
    assert run.losses()[-1] < 0.1
    rows = [part for row in range(8) for part in ("--row", str(row))]
    command = [sys.executable, "-m", "ov_model.train.answer", str(tmp_path / "run/export"), str(jsonl), *rows]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line[12:] for line in told.splitlines() if line.startswith("  answer:")] == list(ANSWERS)
