"""Score a checkpoint on benchmarks: `evaluate(EvalConfig(...))`, the body of `ov eval`.

    OUT/<benchmark>/<identity>/<attempt>/   what lmms-eval writes, answers, report.json, scores.parquet

The identity is a hash of checkpoint, assets, questions, options and code. A finished run of the same identity is taken
as it is, an unfinished one goes on after the last answer; `rerun` makes another attempt and holds it against the last.
lmms-eval runs in a process of its own, for it reads HF_HOME when its tasks are imported.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ov_model.errors import EvaluationFailed, OvError, UsageError
from ov_model.eval.benchmarks import Benchmark, Places, find_task
from ov_model.eval.identity import checkpoint_folder, checkpoint_hash, training_signals
from ov_model.eval.results import REPORT, ScoreRow, read_rows
from ov_model.extras import require
from ov_model.lake.files import hash_json, write_json
from ov_model.lake.lock import ShardLock
from ov_model.train.launch import Nodes, explain, guarded

LOCK, CACHE, ERRORS = "eval.lock", "cache", "errors"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is scored, on what, and how.

    Args:
        checkpoint: folder or hub repository. name: what tables call it; the folder's name, or its run's, by default.
        home: where the benchmarks were prepared (lmms-eval's HF_HOME). out: folder for this checkpoint's scores.
        tasks: benchmarks, or any other task of lmms-eval.
        visual: codec mosaics, or plain frames by intent.
        roots: folders of codec assets; found below `home` where there is none.
        fallback: what a video without its asset is scored on; "none" refuses to begin.
        accept_unhashed: take assets that do not say which video they were made from.
        limit: only the first so many questions of each task.
        rerun: score once more what is finished. require_signal: refuse when training and evaluation differ in signal.
        training_signals: of the training data, where the checkpoint itself does not say.
    """

    checkpoint: str
    home: Path
    out: Path
    tasks: tuple[str, ...]
    name: str | None = None
    revision: str | None = None
    visual: Literal["codec", "frames"] = "codec"
    roots: tuple[Path, ...] = ()
    fallback: Literal["none", "frames"] = "none"
    accept_unhashed: bool = False
    batch_size: int = 1
    num_processes: int = 1
    precision: Literal["auto", "bf16", "float32"] = "auto"
    device: str | None = None
    limit: int | None = None
    rerun: bool = False
    require_signal: bool = False
    training_signals: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError("no task; name at least one benchmark (ov benchmark list shows them)")
        for name, least in (("batch_size", 1), ("num_processes", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class Scored:
    """One benchmark's finished run.

    Args:
        reused: it was finished before this call. report: what `report.json` says.
    """

    benchmark: str
    folder: Path
    rows: tuple[ScoreRow, ...]
    reused: bool
    report: dict[str, Any]

    @property
    def headline(self) -> ScoreRow:
        """The row of the benchmark's one figure."""
        return next(row for row in self.rows if row.headline)

    @property
    def data_version(self) -> str:
        """Changes with the scores and the answers, not with when or where they were made."""
        values = [[row.task, row.metric, row.value, row.hit, row.miss, row.invalid] for row in self.rows]
        return hash_json([values, self.report["answers_hash"]])[:16]


def evaluate(config: EvalConfig) -> list[Scored]:
    """Score the checkpoint on each task, or find it scored.

    Raises:
        UsageError: no such checkpoint or task, or it was not prepared. MissingAssets: videos without a usable asset; no
        answer was generated. EvaluationFailed: a process failed; the message has its traceback.
        LockedError: another process scores the same.
    """
    require("eval", "lmms_eval", "torch", "transformers", "accelerate", "datasets")
    benchmarks = list({find_task(name).task: find_task(name) for name in config.tasks}.values())
    for benchmark in benchmarks:
        refuse_unprepared(benchmark, config.home)
    names = sorted(benchmark.name for benchmark in benchmarks)
    cache = config.out / CACHE
    desk = cache / hash_json(names)[:16]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(ShardLock(config.out / name / LOCK))
        folder = checkpoint_folder(config.checkpoint, config.revision)
        errors, job = desk / ERRORS, desk / "job.json"
        for path in [*errors.glob("*.json"), desk / "outcome.json"]:
            path.unlink(missing_ok=True)
        write_json(job, _job(config, benchmarks, folder, checkpoint_hash(folder, cache / "checkpoints.json")))
        code = guarded(_command(job, errors, config.num_processes), _environment(config, benchmarks))
        outcome = _read(desk / "outcome.json")
        if code or "scored" not in outcome:
            raise _failure(outcome, config.out, errors, code)
    found = []
    for name, (folder, reused) in outcome["scored"].items():
        path = Path(folder)
        found.append(Scored(name, path, tuple(read_rows(path)), reused, _read(path / REPORT)))
    return found


def refuse_unprepared(benchmark: Benchmark, home: Path) -> None:
    """Raise UsageError for a benchmark of the registry whose questions are not there."""
    if benchmark.registered and not Places(benchmark, home).state.is_file():
        raise UsageError(
            f"benchmark {benchmark.name} is not prepared below {home}; run: "
            f"ov benchmark prepare {benchmark.name} --home {home}"
        )


def default_name(checkpoint: str) -> str:
    """What tables call a checkpoint: a hub id as it is; RUN for RUN/export and RUN/checkpoint/<id>/export."""
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        return checkpoint
    parts = [part for part in path.absolute().parts if part not in ("export", "checkpoint", "current")]
    return parts[-2] if len(parts) > 1 and len(parts[-1]) == 16 and "checkpoint" in path.absolute().parts else parts[-1]


def _job(config: EvalConfig, benchmarks: list[Benchmark], folder: Path, content: str) -> dict[str, Any]:
    """What the scoring process reads: the configuration, paths absolute, and what is known of the checkpoint."""
    told = config.training_signals
    return asdict(config) | {
        "tasks": [benchmark.name for benchmark in benchmarks],
        "name": config.name or default_name(config.checkpoint),
        "folder": str(folder),
        "checkpoint_hash": content,
        "training_signals": training_signals(folder) if told is None else told,
        "home": str(config.home.absolute()),
        "out": str(config.out.absolute()),
        "roots": [str(root.absolute()) for root in config.roots],
    }


def _command(job: Path, errors: Path, processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "ov_model.eval.score", str(job), "--agent", str(os.getpid())]
    return [
        *(sys.executable, "-m", "ov_model.train.agent", str(os.getpid()), str(errors), *Nodes(processes).arguments()),
        *("-m", "ov_model.eval.score", str(job)),
    ]


def _environment(config: EvalConfig, benchmarks: list[Benchmark]) -> dict[str, str]:
    """HF_HOME is the benchmarks' home; the hub's cache and token stay the user's; offline where all is prepared."""
    from huggingface_hub import constants

    home = str(config.home.absolute())
    values = {
        "HF_HOME": home,
        "HF_HUB_CACHE": str(constants.HF_HUB_CACHE),
        "HF_TOKEN_PATH": str(constants.HF_TOKEN_PATH),
    }
    if all(benchmark.registered for benchmark in benchmarks):
        values |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return values


def _failure(outcome: dict[str, Any], out: Path, errors: Path, code: int) -> OvError:
    """The error of the scoring process again, by its type's name."""
    kinds = {kind.__name__: kind for kind in _subclasses(OvError)}
    if "error" in outcome:
        return kinds.get(outcome["error"], EvaluationFailed)(outcome["message"])
    return EvaluationFailed(explain(out, errors, code, "evaluation"))


def _subclasses(kind: type[OvError]) -> list[type[OvError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _subclasses(child))]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}
