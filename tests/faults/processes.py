"""Real processes for the fault suite: started, watched, killed or interrupted, looked for when they should be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ov_model.lake.ledger import VOLATILE, read_ledger

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900


class Running:
    """A command in a session of its own; all that it starts carries a mark in its environment."""

    of_this_test: ClassVar[list[Running]] = []

    def __init__(self, command: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, **(environment or {}), "OV_TEST_MARK": self.mark, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            preexec_fn=_heed_interrupts,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.of_this_test.append(self)

    @property
    def output(self) -> str:
        """All that it has said; to be asked for once it has ended."""
        return (self.process.stdout or sys.stdin).read()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert self.process.poll() is None, f"it ended too early: {self.output[-3000:]}"
            assert time.monotonic() < deadline, "it never came as far as the test wants"
            time.sleep(0.005)

    def finish(self, code: int = 0) -> str:
        """Wait for its end with this exit code; what it said."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, f"exit code {self.process.returncode}: {output[-4000:]}"
        return output

    def kill(self) -> None:
        """kill -9 of the command alone; what it started must end by itself."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.expect_nobody()

    def interrupt(self) -> str:
        """Ctrl-C: SIGINT to the whole foreground group, as a terminal sends it; what it said."""
        os.killpg(self.process.pid, signal.SIGINT)
        output = self.finish(130)
        self.expect_nobody()
        return output

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """All of it stopped (SIGSTOP) for the block."""
        group = self.alive()
        for process in group:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in group:
                os.kill(process, signal.SIGCONT)

    def alive(self, *names: str) -> list[int]:
        """Marked processes whose command line holds all names, zombies left out."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"OV_TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, ProcessLookupError):
                continue
            if marked and all(name in command for name in names):
                found.append(int(folder.name))
        return sorted(found)

    def expect_nobody(self) -> None:
        deadline = time.monotonic() + 45
        while left := self.alive():
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.02)


def _heed_interrupts() -> None:
    """A shell that starts the tests in the background has SIGINT ignored, by all that they start too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ov(*arguments: object, environment: Mapping[str, str] | None = None) -> Running:
    """An `ov` command."""
    return Running([sys.executable, "-m", "ov_model.cli", *arguments], environment)


def cpu_time(process: int) -> int:
    """Ticks a process has computed so far: the one at work has more than one that is still being started."""
    return sum(int(field) for field in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13])


def lines(path: Path) -> int:
    """Whole lines of a journal."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the ledgers."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "ledger" not in p.parts
    }


def expect_tidy(folder: Path) -> None:
    """No temporary file, no lock that needs removing and no journal below a folder."""
    left = [p for p in folder.rglob("*") if p.suffix in (".tmp", ".lock") or p.name.endswith(".journal.jsonl")]
    assert [path for path in left if path.name != "trainer.lock"] == []


def expect_same_ledgers(ours: Path, theirs: Path) -> None:
    """The ledgers below two folders tell the same, but for times, attempts and hosts."""
    found = [sorted(p.relative_to(folder) for p in folder.rglob("ledger/*.parquet")) for folder in (ours, theirs)]
    assert found[0] == found[1]
    assert found[0]
    for name in found[0]:
        a, b = (read_ledger(folder / name).drop(VOLATILE) for folder in (ours, theirs))
        assert a.equals(b), name


def expect_same(ours: Path, theirs: Path) -> None:
    """Two folders hold the same, ledgers included, and nothing of a run that was cut off."""
    expect_tidy(ours)
    a, b = outputs(ours), outputs(theirs)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    expect_same_ledgers(ours, theirs)
