"""Start the processes of a training run and guard them: `launch(recipe, jsonl, out)`, the body of `ov train`.

All of them end together: with a failed rank, with SIGTERM or Ctrl-C, and (by the kernel) with kill -9 of this process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ov_model.errors import TrainingFailed, UsageError
from ov_model.extras import require
from ov_model.lake.files import write_bytes
from ov_model.lake.lock import ShardLock
from ov_model.train.agent import EXIT_CODES
from ov_model.train.identity import identify
from ov_model.train.index import JsonlRows
from ov_model.train.recipe import Recipe, dump_recipe

require("train", "torch", "transformers", "accelerate", "deepspeed", "tensorboard")

PATIENCE = 20.0
ERRORS = "errors"
DEFAULTS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of the ranks, where ours does not say otherwise."""


@dataclass(frozen=True)
class Nodes:
    """Machines and processes; with more than one node, run the same command on each with its own rank.

    Args:
        processes: on each node.
        address: host:port of node 0, needed with more than one node.
    """

    processes: int = 1
    nodes: int = 1
    rank: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.processes < 1 or self.nodes < 1 or not 0 <= self.rank < self.nodes:
            raise UsageError(
                f"{self.processes} processes on node {self.rank} of {self.nodes}: expected 1 or more of each"
            )
        if self.nodes > 1 and self.address is None:
            raise UsageError(f"{self.nodes} nodes need --master HOST:PORT of node 0")

    def arguments(self) -> list[str]:
        """Options of torchrun."""
        common = ["--nproc_per_node", str(self.processes), "--max_restarts", "0"]
        if self.nodes == 1:
            return ["--standalone", *common]
        host, _, port = str(self.address).rpartition(":")
        return [
            *common,
            *("--nnodes", str(self.nodes), "--node_rank", str(self.rank)),
            *("--master_addr", host, "--master_port", port),
        ]


def launch(recipe: Recipe, jsonl: Path, out: Path, nodes: Nodes | None = None, *, fresh: bool = False) -> Path:
    """Run a recipe to its end, going on from the last checkpoint in `out`; the folder of the export.

    Args:
        fresh: remove what `out` holds of an earlier run first.

    Raises:
        LockedError: another run is at work in `out`.
        TrainingFailed: a process failed; the message has its traceback.
        UsageError: no such data, or `out` holds another run.
    """
    nodes = nodes or Nodes()
    if not jsonl.is_file():
        raise UsageError(f"{jsonl}: no such file; expected a training JSONL")
    if recipe.data.image_folder is not None and not Path(recipe.data.image_folder).is_dir():
        raise UsageError(f"recipe {recipe.name}: data.image_folder {recipe.data.image_folder} is no folder")
    out.mkdir(parents=True, exist_ok=True)
    leader = nodes.rank == 0
    with ShardLock(out / "train.lock") if leader else nullcontext():
        if leader:
            _clear(out, fresh)
            data_hash = JsonlRows(jsonl, out / "cache").content_hash
            identify(recipe, jsonl, data_hash, out, nodes.processes * nodes.nodes)
            if (out / "export").is_dir():
                return out / "export"
        recipe_file = out / "cache" / f"launched-{nodes.rank}.yaml"
        write_bytes(recipe_file, dump_recipe(recipe).encode())
        code = guarded(_command(recipe_file, jsonl, out, nodes))
        if code:
            raise TrainingFailed(explain(out, out / ERRORS, code, "training"))
    return out / "export"


def default_processes() -> int:
    """One process for each GPU, else one."""
    import torch

    return max(torch.cuda.device_count(), 1)


def _command(recipe_file: Path, jsonl: Path, out: Path, nodes: Nodes) -> list[str]:
    return [
        *(sys.executable, "-m", "ov_model.train.agent", str(os.getpid()), str(out / ERRORS), *nodes.arguments()),
        *("-m", "ov_model.train.run", str(recipe_file), "--data", str(jsonl), "--out", str(out)),
    ]


def _clear(out: Path, fresh: bool) -> None:
    shutil.rmtree(out / ERRORS, ignore_errors=True)
    if fresh:
        for name in ("run.json", "recipe.yaml", "metrics.jsonl", "skipped.jsonl"):
            (out / name).unlink(missing_ok=True)
        for folder in ("export", "tensorboard", *(path.name for path in out.glob("checkpoint-*"))):
            shutil.rmtree(out / folder, ignore_errors=True)


def guarded(command: list[str], environment: Mapping[str, str] | None = None) -> int:
    """Exit code of a command in a process group of its own, which never outlives this call.

    Args:
        environment: variables that are other than here.
    """
    with _sigterm_raises():
        process = subprocess.Popen(
            command, start_new_session=True, env={**DEFAULTS, **os.environ, **(environment or {})}
        )
        try:
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the agent and with it its ranks: politely, then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM as an exception in this thread, so that what was started is ended too (only in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def explain(out: Path, errors: Path, code: int, what: str) -> str:
    """Who failed first, with the traceback; others fail because of it.

    Args:
        errors: folder where ranks and agent leave how they ended. what: training or evaluation.
    """
    killed = {}
    for path in errors.glob(f"{EXIT_CODES}-*.json"):
        killed |= {rank: -code for rank, code in json.loads(path.read_bytes()).items() if code < 0}
    killed = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}
    by_signal = ", ".join(f"rank {rank} was killed by signal {number}" for rank, number in sorted(killed.items()))
    if by_signal:
        return f"{out}: {by_signal} (9 is what the kernel sends when memory runs out); run the same again to go on"
    told = [json.loads(path.read_bytes()) for path in errors.glob("rank*.json")]
    if not told:
        return f"{out}: {what} ended with exit code {code} and no traceback: it was killed; run the same again to go on"
    first = min(told, key=lambda error: error["time"])
    return f"{out}: rank {first['rank']} failed: {first['error']}: {first['message']}\n{first['traceback'].rstrip()}"
