"""Scores of one checkpoint: which process makes them, what it says meanwhile, what is kept and what must hold of it.

`<out>/<benchmark>/current.json` names the runs that were materialized last, one a kind of input, and those before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.checks import Finding, finding
from ov_assets.evaluation_process import EVALUATE
from ov_assets.jobs import GrowingJsonl, Observer, run_job
from ov_assets.metadata import Product, table
from ov_assets.previews import plot
from ov_model.errors import UpstreamError
from ov_model.eval.benchmarks import find_benchmark
from ov_model.eval.compare import describe_reproduction, paired_difference, reproduction
from ov_model.eval.results import REPORT, SCORES, ScoreRow, read_rows, read_samples
from ov_model.lake.files import hash_json, write_json
from ov_model.plots import LINE, draw_counts

CURRENT, JOURNAL = "current.json", "answers.jsonl"
CODEC, FRAMES = "codec", "frames"
_MODULE = "ov_assets.evaluation_process"
_SHOWN = 10
_PLOTTED = 24


@dataclass(frozen=True)
class Source:
    """A checkpoint that can be scored.

    Args:
        asset: that makes it; checks: names of its blocking ones.
        locate: the folder, or hub id and revision. Raises UpstreamError where it was not made.
    """

    name: str
    asset: dg.AssetKey
    checks: tuple[str, ...]
    locate: Callable[[], tuple[str, str | None]]


@dataclass(frozen=True)
class Evaluator:
    """How a checkpoint is scored.

    Args:
        home: where benchmarks lie; out: where results go.
        visuals: kinds of input, each scored by itself.
        options: fields of EvalConfig that are set.
        python: interpreter; None is this one. cwd: what relative paths start from.
    """

    source: Source
    home: Path
    out: Path
    visuals: tuple[str, ...]
    options: Mapping[str, Any]
    python: str | None
    cwd: Path
    observe_every: float

    def score(self, context: dg.AssetExecutionContext, benchmark: str) -> Product:
        """Score one benchmark; only what is missing, where a run was cut off, and nothing where all is there.

        Raises:
            dg.Failure: it failed.
            UpstreamError: there is no checkpoint.
        """
        asked = {name: value for name, value in context.op_execution_context.op_config.items() if value is not None}
        checkpoint, revision = self.source.locate()
        config = {
            **self.options,
            **asked,
            "checkpoint": checkpoint,
            "revision": revision,
            "name": self.source.name,
            "home": str(self.home),
            "out": str(self.out),
            "tasks": [benchmark],
        }
        job = {"task": EVALUATE, "config": config, "visuals": list(self.visuals)}
        observer = self._observer(context, benchmark)
        message = run_job(context, _MODULE, job, self.cwd, self.python, observer).message
        observer.report()
        scored: dict[str, Any] = message["scored"]
        kept = self._keep(benchmark, scored)
        version = hash_json({visual: found["data_version"] for visual, found in scored.items()})[:16]
        return Product(version, _metadata(benchmark, scored, kept))

    def runs(self, benchmark: str) -> dict[str, Any]:
        """Kind of input -> {"folder", "before"} of what was materialized last.

        Raises:
            UpstreamError: nothing was.
        """
        path = self.out / benchmark / CURRENT
        if not path.is_file():
            raise UpstreamError(f"{path} is missing: {self.source.name} was not scored on {benchmark} yet")
        return json.loads(path.read_bytes())

    def there(self, benchmark: str | None) -> bool:
        """Whether the benchmark was scored."""
        return benchmark is not None and (self.out / benchmark / CURRENT).is_file()

    def _keep(self, benchmark: str, scored: Mapping[str, Any]) -> dict[str, Any]:
        """Write down which runs are current; a run of other inputs becomes the one before."""
        known = self.runs(benchmark) if self.there(benchmark) else {}
        kept = {}
        for visual, found in scored.items():
            last = known.get(visual, {})
            folder = Path(found["folder"])
            other = last and Path(last["folder"]).parent != folder.parent
            kept[visual] = {"folder": str(folder), "before": last["folder"] if other else last.get("before")}
        write_json(self.out / benchmark / CURRENT, kept)
        return kept

    def _observer(self, context: dg.AssetExecutionContext, benchmark: str) -> Observer:
        """Counts answers as they are written down."""
        home = self.out / benchmark
        journals = {path: GrowingJsonl(path) for path in home.glob(f"*/*/{JOURNAL}")}
        answers = 0

        def look() -> dict[str, float | int] | None:
            nonlocal answers
            before = answers
            for path in home.glob(f"*/*/{JOURNAL}"):
                answers += sum(1 for _ in journals.setdefault(path, GrowingJsonl(path, 0)).new())
            return {"answers": answers} if answers > before else None

        return Observer(context, self.asset, look, self.observe_every, benchmark)

    @property
    def asset(self) -> dg.AssetKey:
        """Key of the scores."""
        return dg.AssetKey([self.source.name, "scores"])


def headline(rows: list[ScoreRow]) -> ScoreRow:
    """The row of the benchmark's one figure."""
    return next((row for row in rows if row.headline), rows[0])


def _metadata(benchmark: str, scored: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    works = []
    for visual, found in scored.items():
        rows = [ScoreRow(**row) for row in found["rows"]]
        top, folder = headline(rows), Path(found["folder"])
        works.append(f"{visual}: {top.samples} questions {'scored before' if found['reused'] else 'scored'}")
        facts: dict[str, Any] = {
            "score": round(top.percent, 4),
            "standard error": None if top.stderr is None else round(top.stderr, 4),
            "metric": top.metric,
            "metrics": table([_metric(row) for row in rows]),
            "plot": plot(_draw(rows, top), "scores and videos"),
            "samples": top.samples,
            "HIT": top.hit,
            "MISS": top.miss,
            "invalid": top.invalid,
            "unhashed": top.unhashed,
            "on plain frames": top.frames,
            "signals": json.loads(top.signals),
            "training signals": json.loads(top.training_signals),
            "visual tokens": top.visual_tokens,
            "max new tokens": top.max_new_tokens,
            "configuration hash": top.config_hash,
            "assets hash": top.assets_hash,
            "code hash": top.code_hash,
            "seconds": top.seconds,
            "run": dg.MetadataValue.path(str(folder)),
            "report": dg.MetadataValue.path(str(folder / REPORT)),
            "change of score": _difference(folder, kept[visual]["before"], top.metric),
        }
        label = "" if visual == CODEC or len(scored) == 1 else f" ({visual})"
        metadata |= {f"{name}{label}": value for name, value in facts.items() if value is not None}
    first = next(iter(scored.values()))
    return {"work": "; ".join(works), **metadata, "benchmark": benchmark, "dagster/uri": first["folder"]}


def _draw(rows: list[ScoreRow], top: ScoreRow) -> bytes:
    """The benchmark's figure, those of its tasks, and what became of its videos."""
    title = f"{top.benchmark}, {top.checkpoint}: {top.percent:.2f} %; videos HIT {top.hit}, MISS {top.miss}"
    figures = {f"{row.task}: {row.metric}": row.percent for row in rows if row.percent is not None}
    return draw_counts(dict(list(figures.items())[:_PLOTTED]), f"{title}, invalid {top.invalid}", LINE, full=108)


def _metric(row: ScoreRow) -> dict[str, Any]:
    percent = None if row.percent is None else round(row.percent, 4)
    return {"task": row.task, "metric": row.metric, "percent": percent, "value": row.value, "samples": row.samples}


def _difference(folder: Path, before: str | None, metric: str) -> str:
    """The paired difference to the run of other inputs before this one, in words."""
    if before is None or not (Path(before) / SCORES).is_file():
        return "no earlier run of other inputs"
    found = paired_difference(read_samples(folder), read_samples(Path(before)), metric.partition("[")[0])
    return f"no question has {metric} in both runs" if found is None else f"{found}, against {before}"


def check_hits(evaluator: Evaluator, benchmark: str) -> Finding:
    """Every video has its asset; misses that plain frames were asked for are told, and block nothing."""
    offenders, numbers, asked = [], Counter(), False
    for visual, run in evaluator.runs(benchmark).items():
        top = headline(read_rows(Path(run["folder"])))
        if visual != CODEC:
            continue
        asked = top.fallback != "none"
        numbers.update({"HIT": top.hit, "MISS": top.miss, "invalid": top.invalid, "unhashed": top.unhashed})
        if top.miss or top.invalid:
            offenders.append(f"MISS {top.miss}, invalid {top.invalid} of {top.hit + top.miss + top.invalid} videos")
            offenders += _reported(Path(run["folder"]))
    well = f"HIT {numbers['HIT']}/{numbers['HIT']}" if numbers else "scored on plain frames, no asset is looked for"
    found = finding(offenders, well, dict(numbers))
    return replace(found, tolerated=asked)


def _reported(folder: Path) -> list[str]:
    """Keys of misses and invalid ones with their reasons, as the run's report has them."""
    path = folder / REPORT
    report = json.loads(path.read_bytes()) if path.is_file() else {}
    return [f"{one['key']}: {one['status']}: {one['reason']}" for one in report.get("missing", [])[:_SHOWN]]


def known_samples(benchmark: str) -> int | None:
    """How many questions the registry says that a benchmark has."""
    return find_benchmark(benchmark).num_samples


def check_count(evaluator: Evaluator, benchmark: str) -> Finding:
    """Every question was scored; another number of them than the registry says is told, and blocks nothing."""
    known = known_samples(benchmark)
    left_out, other, numbers = [], [], {}
    for visual, run in evaluator.runs(benchmark).items():
        top = headline(read_rows(Path(run["folder"])))
        numbers |= {f"scored ({visual})": top.samples, "questions": top.docs}
        if top.samples != top.docs:
            left_out.append(f"{visual}: {top.samples} of {top.docs} questions were scored: not the benchmark's score")
        if known not in (None, top.docs):
            other.append(f"{visual}: the data hold {top.docs} questions, the registry says {known}")
    found = finding([*left_out, *other], f"all {numbers.get('questions', 0)} questions were scored", numbers)
    return replace(found, tolerated=not left_out)


def check_signals(evaluator: Evaluator, benchmark: str) -> Finding:
    """The signals that chose the patches are among those of training."""
    run = evaluator.runs(benchmark).get(CODEC)
    if run is None:
        return Finding(True, "scored on plain frames, no signal chose patches")
    top = headline(read_rows(Path(run["folder"])))
    here, there = json.loads(top.signals) or {}, json.loads(top.training_signals) or {}
    numbers = {f"{name} here": n for name, n in here.items()} | {f"{name} in training": n for name, n in there.items()}
    shown = [", ".join(f"{name}: {n}" for name, n in sorted(counts.items())) or "none" for counts in (here, there)]
    if not there:
        return Finding(not here, f"scored by {shown[0]}; what signals training had, nobody said", numbers)
    return Finding(here.keys() <= there.keys(), f"scored by {shown[0]}; trained on {shown[1]}", numbers)


def check_reproduction(evaluator: Evaluator, benchmark: str) -> Finding:
    """Runs on the same checkpoint, assets, options and code gave the same greedy answers."""
    offenders, compared, told = [], 0, []
    for visual, run in evaluator.runs(benchmark).items():
        folder = Path(run["folder"])
        finished = {int(path.parent.name): path.parent for path in folder.parent.glob(f"*/{SCORES}")}
        earlier = [number for number in finished if number < int(folder.name)]
        if not earlier:
            continue
        found = reproduction(read_samples(folder), read_samples(finished[max(earlier)]))
        compared += found.compared
        told.append(f"{visual}: {describe_reproduction(found)}, against attempt {max(earlier)}")
        if not found.equal:
            offenders += [told[-1], *found.differing[:_SHOWN]]
    return finding(offenders, "; ".join(told) or "scored once; nothing to compare with", {"answers compared": compared})
