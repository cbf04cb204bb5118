"""A stage of a training run as a step: which folder, which process, what it says while it trains and at the end.

A stage's folder is named after all that decides its result: options, data, and for the full stage the projector. So a
retry goes on in the same folder, a change begins another, and what is taken back finds its checkpoint trained already.
Earlier folders stay until somebody removes them; `current` names the one that was materialized last.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ov_assets.checks import Finding
from ov_assets.jobs import GrowingJsonl, Observer, run_job
from ov_assets.pipes import Ended
from ov_assets.previews import plot
from ov_assets.training_process import HISTOGRAM, LENGTHS, TRAIN
from ov_model.errors import UpstreamError
from ov_model.lake.dataset import Dataset
from ov_model.lake.files import hash_file, hash_json
from ov_model.lake.stages import MOSAICS, RAW
from ov_model.plots import draw_loss
from ov_model.train.checkpoints import checkpoints
from ov_model.train.index import JsonlRows
from ov_model.train.metrics import METRICS, read_metrics
from ov_model.train.recipe import Recipe

EXPORT, PROJECTOR_FILE, CURRENT = "export", "mm_projector.bin", "current"
_ID = 16


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Args:
        asset: that makes the JSONL; its checks: names of its blocking ones.
        datasets: with videos, whose pictures the JSONL names but does not contain.
    """

    asset: dg.AssetKey
    jsonl: Path
    checks: tuple[str, ...]
    datasets: tuple[Dataset, ...]

    @property
    def deps(self) -> list[dg.AssetKey]:
        """The JSONL's asset and, for staleness reaches one hop, those that hold what it names."""
        behind = [dg.AssetKey([dataset.spec.name, stage]) for dataset in self.datasets for stage in (RAW, MOSAICS)]
        return [self.asset, *behind]

    def fingerprint(self, cache: Path) -> str:
        """Hash of the rows and of the pictures and positions behind them.

        Raises:
            UpstreamError: the JSONL has not been made.
        """
        if not self.jsonl.is_file():
            raise UpstreamError(f"{self.jsonl} is missing; materialize {self.asset.to_user_string()} first")
        parts: list[Any] = [JsonlRows(self.jsonl, cache).content_hash]
        for dataset in self.datasets:
            for shard in dataset.shards:
                for stage, content in ((RAW, "content_hash"), (MOSAICS, "output_hash")):
                    frame = dataset.ledger(stage, shard)
                    parts.append(frame.sort("key").select("key", "status", pl.col(content)).rows())
        return hash_json(parts)


@dataclass(frozen=True)
class Trainer:
    """How the processes of a run are started.

    Args:
        processes: on this machine, one a GPU.
        python: interpreter; None is this one.
        cwd: what relative paths in recipes start from.
        observe_every: seconds between two observations of a training that goes on.
    """

    processes: int
    python: str | None
    cwd: Path
    observe_every: float = 10.0

    def run(
        self, context: dg.AssetExecutionContext, job: dict[str, Any], on_tick: Callable[[], None] = lambda: None
    ) -> Ended:
        """Run a job of `ov_assets.training_process`.

        Raises:
            dg.Failure: it failed; with retries where going on from the last checkpoint may help.
        """
        return run_job(context, "ov_assets.training_process", job, self.cwd, self.python, on_tick)


def metrics_tail(context: dg.AssetExecutionContext, asset: dg.AssetKey, path: Path, every: float) -> Observer:
    """Follows a run's metrics.jsonl."""
    lines = GrowingJsonl(path)

    def look() -> dict[str, float | int] | None:
        found = list(lines.new())
        return _told(found[-1]) if found else None

    return Observer(context, asset, look, every)


def _told(values: dict[str, Any]) -> dict[str, float | int]:
    return {
        "step": int(values["step"]),
        "loss": float(values["loss"]),
        "learning rate": float(values["lr"]),
        "tokens per second": float(values["tokens_per_second"]),
        "memory GB": values["memory_bytes"] / 1e9,
    }


@dataclass(frozen=True)
class Made:
    """What a stage's step made: the run's folder, its data version, and what the UI is told."""

    folder: Path
    data_version: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One of the two stages of a run.

    Args:
        home: folder of the stage in the lake; the runs are below it.
        code_version: of the options of this stage and of those before it.
    """

    asset: dg.AssetKey
    home: Path
    recipe: Recipe
    code_version: str

    def train(
        self, context: dg.AssetExecutionContext, data: TrainingData, trainer: Trainer, projector: Path | None
    ) -> Made:
        """Train to the end, from the last checkpoint where there is one; not at all where the export is there.

        Args:
            projector: `mm_projector.bin` to start from.

        Raises:
            dg.Failure: the training failed.
            UpstreamError: the data have not been made.
        """
        recipe, started = self.recipe, time.perf_counter()
        fingerprint = data.fingerprint(self.home / "cache")
        if projector is not None:
            recipe = replace(recipe, model=replace(recipe.model, projector=str(projector)))
        decides = [self.code_version, fingerprint, projector and hash_file(projector)]
        folder = self.home / hash_json(decides)[:_ID]
        done = 0
        if not (folder / EXPORT).is_dir():
            before = _last_step(folder)
            job = {
                "task": TRAIN,
                "recipe": recipe.to_dict(),
                "jsonl": str(data.jsonl),
                "out": str(folder),
                "processes": trainer.processes,
            }
            tail = metrics_tail(context, self.asset, folder / METRICS, trainer.observe_every)
            trainer.run(context, job, tail)
            tail.report()
            done = _steps(read_metrics(folder / METRICS)) - before
        _point_to(self.home / CURRENT, folder)
        metadata = self._metadata(folder, data, fingerprint, done, time.perf_counter() - started)
        return Made(folder, weights_version(folder / EXPORT), metadata)

    def export(self) -> Path:
        """The export that was materialized last.

        Raises:
            UpstreamError: there is none.
        """
        found = (self.home / CURRENT).resolve() / EXPORT
        if not found.is_dir():
            name = self.asset.to_user_string()
            raise UpstreamError(f"{self.home} holds no finished run; materialize {name} first")
        return found

    def _metadata(
        self, folder: Path, data: TrainingData, fingerprint: str, done: int, seconds: float
    ) -> dict[str, Any]:
        metrics = read_metrics(folder / METRICS)
        final: dict[str, Any] = metrics[-1] if metrics else {}
        steps, loss = _steps(metrics), float(final.get("loss", math.nan))
        weights = sum(path.stat().st_size for path in weight_files(folder / EXPORT))
        title = f"{self.asset.to_user_string()}: loss {loss:.4f} after {steps:,} steps"
        return {
            "work": f"{done} of {steps} steps trained",
            "loss curve": plot(draw_loss(metrics, title), "loss over steps"),
            "loss": loss,
            "steps": steps,
            "steps trained now": done,
            "tokens": sum(values["tokens"] for values in metrics),
            "tokens per second": float(final.get("tokens_per_second", 0.0)),
            "memory GB": max((values["memory_bytes"] for values in metrics), default=0) / 1e9,
            "skipped samples": sum(values["skipped"] for values in metrics),
            "seconds": round(seconds, 3),
            "bytes": weights,
            "recipe": self.recipe.name,
            "recipe hash": self.recipe.config_hash[:_ID],
            "data": dg.MetadataValue.path(str(data.jsonl)),
            "data hash": fingerprint[:_ID],
            "run": dg.MetadataValue.path(str(folder)),
            "tensorboard": f"tensorboard --logdir {folder / 'tensorboard'}",
            "dagster/uri": str(folder / EXPORT),
        }


def measure(context: dg.AssetExecutionContext, data: TrainingData, trainer: Trainer, recipe: Recipe, out: Path) -> Made:
    """Lengths of all rows in tokens under a recipe, as a histogram, percentiles and what would be cut.

    Raises:
        dg.Failure: the process failed.
        UpstreamError: the data have not been made.
    """
    started = time.perf_counter()
    data.fingerprint(out / "cache")
    job = {"task": LENGTHS, "recipe": recipe.to_dict(), "jsonl": str(data.jsonl), "out": str(out)}
    found = trainer.run(context, job).message
    share = found["truncated"] / found["samples"] if found["samples"] else 0.0
    metadata = {
        "work": f"{found['samples']} rows measured",
        "histogram": plot((out / HISTOGRAM).read_bytes(), "lengths in tokens"),
        "rows": found["samples"],
        **{name: found[name] for name in ("p50", "p99", "max", "tokens")},
        "max_length": found["max_length"],
        "truncated": found["truncated"],
        "share truncated": share,
        "tokens cut": found["tokens_cut"],
        "unusable": sum(found["bad"].values()),
        "unusable by reason": found["bad"],
        "seconds": round(time.perf_counter() - started, 3),
        "bytes": data.jsonl.stat().st_size,
        "dagster/uri": str(out / HISTOGRAM),
    }
    return Made(out, hash_json(found)[:_ID], metadata)


def weight_files(export: Path) -> list[Path]:
    """Files of an export that hold weights."""
    return sorted([*export.glob("*.safetensors"), *export.glob("*.bin")])


def weights_version(export: Path) -> str:
    """Hash of an export's weights."""
    return hash_json({path.name: hash_file(path) for path in weight_files(export)})[:_ID]


def check_export(stage: Stage) -> Finding:
    """Whether the export that was materialized last is whole and its losses are numbers."""
    try:
        export = stage.export()
    except UpstreamError as error:
        return Finding(False, str(error), {})
    wanted = ["config.json", "tokenizer_config.json", PROJECTOR_FILE, "recipe.yaml", "README.md"]
    missing = [name for name in wanted if not (export / name).is_file()]
    problems = [f"{name} is missing in {export}; remove that folder to have it made again" for name in missing]
    if stage.recipe.stage == "full" and not list(export.glob("*.safetensors")):
        problems.append(f"no safetensors in {export}; remove that folder to have it made again")
    metrics = read_metrics(export.parent / METRICS)
    problems += [f"loss is {v['loss']} at step {v['step']}" for v in metrics if not math.isfinite(v["loss"])]
    summary = problems[0] if problems else f"whole, {len(metrics)} losses, all of them numbers"
    return Finding(not problems, summary, {"losses": len(metrics)}, tuple(problems[:10]))


def _last_step(folder: Path) -> int:
    """Step of the last complete checkpoint, 0 without one."""
    found = checkpoints(folder)
    return int(found[-1].name.rpartition("-")[2]) if found else 0


def _steps(metrics: Sequence[dict[str, Any]]) -> int:
    """Steps of a finished run; the last ones need not be logged."""
    return int(metrics[-1]["max_steps"]) if metrics else 0


def _point_to(link: Path, folder: Path) -> None:
    """Make a relative symbolic link, in one step where there was another."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name, target_is_directory=True)
    temporary.replace(link)
