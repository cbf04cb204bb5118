"""Training runs for tests: a tiny component, and a process that pretends to train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

import ov_assets.jobs
from ov_assets.components import TrainingRun
from ov_assets.components.run_assets import RunAssets
from ov_assets.pipes import Ended
from ov_assets.training import TrainingData
from ov_model.lake.files import hash_file, write_bytes
from ov_model.train.metrics import MetricsFile

SHORT = {"run.zero": 0, "optim.max_steps": 3}


@dataclass
class RunPlayground:
    """A training JSONL and a run named `small` on it; the instance remembers."""

    folder: Path
    jsonl: Path
    instance: dg.DagsterInstance
    datasets: tuple[Any, ...] = ()

    def assets(
        self, projector: dict[str, Any] | None = None, checkpoint: dict[str, Any] | None = None, **options: Any
    ) -> RunAssets:
        """The run, with fields of its recipes and attributes of the component other than usual."""
        attributes = {
            "data": "data",
            "projector": {"recipe": "tiny", "overrides": SHORT | (projector or {})},
            "checkpoint": {"recipe": "tiny", "overrides": SHORT | (checkpoint or {})},
            "retry_delay": 0,
            "observe_every": 0,
            **options,
        }
        data = TrainingData(dg.AssetKey(["data", "train_jsonl"]), self.jsonl, (), self.datasets)
        return TrainingRun.from_attributes_dict(attributes=attributes).run("small", self.folder, data)

    def materialize(self, *names: str, assets: RunAssets | None = None) -> dg.ExecuteInProcessResult:
        definitions = (assets or self.assets()).definitions()
        return dg.materialize(
            list(definitions.assets or []),  # pyright: ignore[reportArgumentType]
            instance=self.instance,
            selection=[dg.AssetKey(["small", name]) for name in names],
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


@dataclass
class PretendedProcess:
    """In place of `run_process`: leaves a run as training would, or ends as told; remembers the jobs."""

    monkeypatch: Any
    ends: Iterable[Ended | BaseException] = ()
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting = list(self.ends)
        self.monkeypatch.setattr(ov_assets.jobs, "run_process", self)

    def __call__(
        self, context: Any, command: list[str], extras: dict[str, Any], cwd: Path, on_tick: Callable[[], None]
    ) -> Ended:
        self.jobs.append(extras["job"])
        if self.waiting:
            end = self.waiting.pop(0)
            if isinstance(end, BaseException):
                raise end
            return end
        return Ended(0, {"export": str(pretend(extras["job"]))})

    @property
    def trained(self) -> list[str]:
        """The stages that were trained, in order."""
        return [job["recipe"]["stage"] for job in self.jobs]


def pretend(job: dict[str, Any]) -> Path:
    """A run's folder whose weights follow from its recipe and data."""
    out, recipe = Path(job["out"]), job["recipe"]
    metrics = MetricsFile(out / "metrics.jsonl")
    speed = {"tokens": 10, "tokens_per_second": 5.0, "memory_bytes": 10**9, "skipped": 0}
    metrics.append({"step": 3, "max_steps": 3, "loss": 0.5, "lr": 0.1, **speed})
    metrics.close()
    files = ["config.json", "tokenizer_config.json", "recipe.yaml", "README.md", "mm_projector.bin"]
    weights = repr((recipe["optim"], hash_file(Path(job["jsonl"]))))
    for name in [*files, *(["model.safetensors"] if recipe["stage"] == "full" else [])]:
        write_bytes(out / "export" / name, weights.encode())
    return out / "export"


def observations(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    """What was observed while training, in order."""
    events = [event for event in result.all_events if event.is_asset_observation]
    return [
        {name: value.value for name, value in event.asset_observation_data.asset_observation.metadata.items()}
        for event in events
    ]
