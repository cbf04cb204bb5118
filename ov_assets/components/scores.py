"""The scores of a checkpoint as an asset: `<run>/scores`, partitioned by benchmark, each a process of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ov_assets.checks import Finding
from ov_assets.components.benchmark_set import BenchmarkSet
from ov_assets.components.step import StepAsset, StepCheck
from ov_assets.environment import lake_root
from ov_assets.evaluation import (
    CODEC,
    FRAMES,
    Evaluator,
    Source,
    check_count,
    check_hits,
    check_reproduction,
    check_signals,
)
from ov_assets.guards import refuse_after_failed_checks
from ov_assets.inputs import described
from ov_assets.metadata import Product
from ov_assets.needs import NeedAttributes, need_of_processes
from ov_model.errors import UsageError
from ov_model.lake.files import hash_json

SCORES = "scores"
SCORES_VERSION = 1
_TEXT = "Scores on the benchmarks, every video of theirs known to be HIT, MISS or invalid."
COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("metric", "str", "of a task; the benchmark's one figure is the headline"),
        dg.TableColumn("percent", "float64", "the metric in percent"),
        dg.TableColumn("hit", "int64", "videos that have their codec asset"),
        dg.TableColumn("miss", "int64", "videos that have none"),
        dg.TableColumn("invalid", "int64", "videos that have one that may not be used"),
        dg.TableColumn("samples", "int64", "questions scored"),
    ]
)
CONFIG: Mapping[str, dg.Field] = {
    "fallback": dg.Field(
        dg.Enum("Fallback", [dg.EnumValue("none"), dg.EnumValue("frames")]),
        is_required=False,
        description="What a video without its asset is scored on; none refuses to begin.",
    ),
    "limit": dg.Field(int, is_required=False, description="Only the first so many questions: not the real score."),
    "rerun": dg.Field(
        bool, default_value=False, is_required=False, description="Score again what is scored, and compare the answers."
    ),
}


class ScoresAttributes(dg.Model, dg.Resolvable):
    """How a checkpoint is scored: the options of `ov eval`; unset, its defaults hold.

    `visual: both` scores mosaics and plain frames. `python`: interpreter of another environment that has ov-lake's
    extra `eval` and dagster-pipes; None is this one. `retries`: of a process that was killed, going on after the last
    answer. `observe_every`: seconds between observations. `need`: what scoring takes of a cluster's machine [a GPU a
    process, unless `device` is cpu].
    """

    visual: Literal["codec", "frames", "both"] = "codec"
    fallback: Literal["none", "frames"] | None = None
    accept_unhashed: bool | None = None
    batch_size: int | None = None
    num_processes: int | None = None
    precision: Literal["auto", "bf16", "float32"] | None = None
    device: str | None = None
    require_signal: bool = False
    training_signals: dict[str, int] | None = None
    python: str | None = None
    pool: str | None = "gpu"
    retries: int = 2
    retry_delay: float = 5.0
    observe_every: float = 10.0
    need: NeedAttributes = NeedAttributes()

    def step(
        self,
        source: Source,
        benchmarks: BenchmarkSet,
        project: Path,
        description: str = "",
        owners: Sequence[str] = (),
    ) -> StepAsset:
        """The asset of a checkpoint's scores.

        Raises:
            UsageError: a number that cannot be.
        """
        for name, least in (("batch_size", 1), ("num_processes", 1), ("retries", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"scores of {source.name}: {name} is {value}; it must be at least {least}")
        evaluator = self.evaluator(source, benchmarks, project)
        deps = [source.asset, benchmarks.videos, benchmarks.assets]
        return StepAsset(
            key=evaluator.asset,
            description=described(_TEXT, deps, description),
            deps=deps,
            kinds=frozenset({"parquet"}),
            group=source.name,
            code_version=self._code_version(evaluator),
            columns=COLUMNS,
            make=lambda context, benchmark: self._score(context, evaluator, benchmarks, benchmark or ""),
            there=evaluator.there,
            checks=self._checks(evaluator),
            refuse={dg.AssetCheckKey(source.asset, name): False for name in source.checks},
            partitions=benchmarks.partitions,
            config=CONFIG,
            owners=owners,
            pool=self.pool,
            need=self.need.over(need_of_processes(self.num_processes or 1, 2, gpus=self.device != "cpu")),
            retry=dg.RetryPolicy(max_retries=self.retries, delay=self.retry_delay),
        )

    def evaluator(self, source: Source, benchmarks: BenchmarkSet, project: Path) -> Evaluator:
        """What does the scoring."""
        names = ("fallback", "accept_unhashed", "batch_size", "num_processes", "precision", "device")
        options: dict[str, Any] = {name: getattr(self, name) for name in (*names, "training_signals")}
        options = {name: value for name, value in options.items() if value is not None}
        return Evaluator(
            source=source,
            home=benchmarks.home,
            out=lake_root() / source.name / SCORES,
            visuals=(CODEC, FRAMES) if self.visual == "both" else (self.visual,),
            options=options | {"require_signal": self.require_signal},
            python=self.python,
            cwd=project,
            observe_every=self.observe_every,
        )

    @staticmethod
    def _score(
        context: dg.AssetExecutionContext, evaluator: Evaluator, benchmarks: BenchmarkSet, benchmark: str
    ) -> Product:
        """Score, unless a check of the benchmark failed and nobody asked by name for what can be had all the same."""
        asked = context.op_execution_context.op_config.get("fallback") or evaluator.options.get("fallback", "none")
        if asked == "none" and CODEC in evaluator.visuals:
            refuse_after_failed_checks(context.instance, benchmarks.blocking, benchmark)
        return evaluator.score(context, benchmark)

    def _code_version(self, evaluator: Evaluator) -> str:
        """Of the options that may change an answer; a batch's size may, by rounding."""
        no_matter = {"num_processes", "device", "require_signal"}
        options = {name: value for name, value in evaluator.options.items() if name not in no_matter}
        return hash_json([SCORES_VERSION, evaluator.visuals, options])[:16]

    def _checks(self, evaluator: Evaluator) -> dict[str, StepCheck]:
        def of(find: Callable[[Evaluator, str], Finding]) -> Callable[[str | None], Finding]:
            return lambda benchmark: find(evaluator, benchmark or "")

        return {
            "all_hit": StepCheck(
                "Every video has its codec asset; a fallback that was asked for warns.", of(check_hits)
            ),
            "sample_count": StepCheck(
                "Every question was scored, and there are as many as the registry says (a warning).", of(check_count)
            ),
            "signals_agree": StepCheck(
                "The signals that chose the patches are those of the training data (a warning, unless required).",
                of(check_signals),
                blocking=self.require_signal,
            ),
            "reproducible": StepCheck(
                "The same checkpoint, assets and code gave the same greedy answers.", of(check_reproduction)
            ),
        }
