"""Scores for tests: a checkpoint, two benchmarks that somebody prepared, and a process that pretends to score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

import ov_assets.jobs
from ov_assets.components import Benchmarks
from ov_assets.components.leaderboard import leaderboard
from ov_assets.components.scores import ScoresAttributes
from ov_assets.components.step import StepAsset
from ov_assets.evaluation import Source
from ov_assets.pipes import Ended
from ov_model.eval.results import REPORT, SAMPLE_SCHEMA, SCORES, ScoreRow, write_scores
from ov_model.lake.files import hash_json, write_json

BENCHMARKS = ("lvbench", "mlvu_dev")
MISS = {"task": "t", "key": "clip", "status": "miss", "video": "/clip.mp4", "reason": "no asset"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class EvalPlayground:
    """A run named `small` whose checkpoint is a folder with a number in it; the instance remembers."""

    folder: Path
    instance: dg.DagsterInstance
    options: dict[str, Any] = field(default_factory=lambda: {"training_signals": {"residual": 9}})

    @property
    def component(self) -> Benchmarks:
        return Benchmarks.from_attributes_dict(attributes={"benchmarks": list(BENCHMARKS)})

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    def scores(self, run: str = "small", **options: Any) -> StepAsset:
        """The scores of a run."""
        source = Source(
            run, dg.AssetKey([run, "checkpoint"]), ("export_complete",), lambda: (str(self.folder / run), None)
        )
        attributes = {"retry_delay": 0, "observe_every": 0, **self.options, **options}
        scores = ScoresAttributes.model_validate(attributes)
        return scores.step(source, self.component.benchmark_set("benchmarks"), self.folder)

    def definitions(self, *runs: str, **options: Any) -> dg.Definitions:
        """Everything of a project with these runs."""
        runs = runs or ("small",)
        checkpoints = [_checkpoint(run) for run in runs]
        own = dg.Definitions(assets=[*checkpoints, *(self.scores(run, **options).definition() for run in runs)])
        return dg.Definitions.merge(self.component.definitions("benchmarks", runs), own)

    def report(self, name: str, version: str, partition: str | None = None) -> None:
        """Somebody made an asset."""
        tags = {"dagster/data_version": version}
        event = dg.AssetMaterialization(dg.AssetKey(name.split("/")), partition=partition, tags=tags)
        self.instance.report_runless_asset_event(event)

    def report_failed_check(self, name: str, check: str, partition: str | None) -> None:
        """A check of an asset failed."""
        key = dg.AssetKey(name.split("/"))
        found = dg.AssetCheckEvaluation(
            asset_key=key, check_name=check, passed=False, metadata={}, partition=partition, blocking=True
        )
        self.instance.report_runless_asset_event(found)

    def prepare(self, version: str = "1") -> None:
        """Somebody trained the checkpoint and prepared the benchmarks."""
        self.report("small/checkpoint", version)
        for benchmark in BENCHMARKS:
            for asset in ("benchmark_videos", "benchmark_assets"):
                self.report(f"benchmarks/{asset}", version, benchmark)

    def score(self, benchmark: str, run: str = "small", **config: Any) -> dg.ExecuteInProcessResult:
        """Materialize the scores of a run on one benchmark; `config` is the run's configuration."""
        definitions = self.definitions(run)
        return self.materialize([dg.AssetKey([run, "scores"])], definitions, benchmark, **config)

    def materialize(
        self, keys: list[dg.AssetKey], definitions: dg.Definitions, partition: str | None, **config: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets as a run of the UI does."""
        ops = {"__".join(key.path): {"config": config} for key in keys if config}
        return dg.materialize(
            list(definitions.assets or []),  # pyright: ignore[reportArgumentType]
            instance=self.instance,
            selection=keys,
            partition_key=partition,
            raise_on_error=False,
            run_config={**QUIET, "ops": ops},
        )

    def run_check(self, name: str) -> dg.ExecuteInProcessResult:
        """Only evaluate a check of the scores, as the Execute button of the UI does."""
        job = dg.Definitions(assets=self.definitions().assets).resolve_implicit_global_asset_job_def()
        keys = {dg.AssetCheckKey(dg.AssetKey(["small", "scores"]), name)}
        subset = job.get_subset(asset_selection=set(), asset_check_selection=keys)
        return subset.execute_in_process(instance=self.instance, raise_on_error=False, run_config=QUIET)

    def board(self) -> dg.ExecuteInProcessResult:
        """Materialize the leaderboard."""
        step = leaderboard(self.component.benchmark_set("benchmarks"), ["small"], ())
        return dg.materialize([step.definition()], instance=self.instance, raise_on_error=False, run_config=QUIET)


def _checkpoint(run: str) -> dg.AssetsDefinition:
    @dg.asset(key=[run, "checkpoint"], code_version="1")
    def checkpoint() -> None: ...

    return checkpoint


@dataclass
class PretendedScoring:
    """In place of `run_process`: leaves finished runs as `evaluate` does, or ends as told; remembers the jobs.

    Args:
        answers: what is answered to each question; right is "A".
        counts: columns of the rows other than usual, as {"miss": 1}.
    """

    monkeypatch: Any
    ends: Iterable[Ended | BaseException] = ()
    answers: list[str] = field(default_factory=lambda: ["A", "B", "A", "A"])
    counts: dict[str, Any] = field(default_factory=dict)
    assets: str = "assets"
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
        scored = {visual: self.leave(extras["job"]["config"], visual) for visual in extras["job"]["visuals"]}
        on_tick()
        return Ended(0, {"scored": scored})

    def leave(self, config: dict[str, Any], visual: str) -> dict[str, Any]:
        """A finished run of a benchmark, or the one that is there."""
        (benchmark,) = config["tasks"]
        limit = config.get("limit") or len(self.answers)
        decides = [config["checkpoint"], visual, self.assets, config.get("fallback"), limit]
        identity = Path(config["out"]) / benchmark / hash_json(decides)[:16]
        attempts = sorted(identity.glob(f"*/{SCORES}"))
        reused = bool(attempts) and not config["rerun"]
        folder = attempts[-1].parent if reused else identity / str(len(attempts))
        if not reused:
            rows, samples = self.rows(config, visual, folder, limit)
            write_json(folder / REPORT, {"missing": [MISS] if self.counts.get("miss") else []})
            (folder / "answers.jsonl").write_text('{"answer": "A"}\n' * limit)
            write_scores(folder, rows, samples)
        rows = [ScoreRow(**row) for row in pl.read_parquet(folder / SCORES).to_dicts()]
        version = hash_json([rows[0].value, identity.name])[:16]
        return {
            "folder": str(folder),
            "data_version": version,
            "reused": reused,
            "rows": [asdict(row) for row in rows],
        }

    def rows(
        self, config: dict[str, Any], visual: str, folder: Path, limit: int
    ) -> tuple[list[ScoreRow], pl.DataFrame]:
        """One metric, `acc`, of a question each about a video of its own."""
        (benchmark,) = config["tasks"]
        given = self.answers[:limit]
        share = sum(answer == "A" for answer in given) / len(given)
        counted = len(given) if visual == "codec" else 0
        values: dict[str, Any] = {
            **dict.fromkeys(("miss", "invalid", "unhashed", "images", "text"), 0),
            **dict.fromkeys(("config_hash", "assets_hash", "dataset_hash", "code_hash", "versions"), "x"),
            "checkpoint": config["name"],
            "checkpoint_hash": "c",
            "benchmark": benchmark,
            "task": benchmark,
            "metric": "acc",
            "headline": True,
            "value": share,
            "percent": 100 * share,
            "stderr": None,
            "run": f"{folder.parent.name}/{folder.name}",
            "visual": visual,
            "fallback": config.get("fallback", "none"),
            "hit": counted,
            "frames": len(given) - counted,
            "samples": len(given),
            "docs": len(self.answers),
            "signals": json.dumps({"residual": counted} if counted else {}),
            "training_signals": json.dumps(config.get("training_signals")),
            "visual_tokens": 162.0,
            "max_new_tokens": 16,
            "started_at": f"2026-01-0{len(self.jobs)}T00:00:00+00:00",
            "seconds": 1.0,
            "folder": str(folder),
            **self.counts,
        }
        samples = [
            {
                "task": benchmark,
                "doc_id": i,
                "metric": "acc",
                "score": float(answer == "A"),
                "answer": answer,
                "greedy": True,
                "cluster": f"video{i}",
            }
            for i, answer in enumerate(given)
        ]
        return [ScoreRow(**values)], pl.DataFrame(samples, schema=SAMPLE_SCHEMA)
