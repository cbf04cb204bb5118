"""The process that scores: `python -m ov_model.eval.score JOB.json`, or the same under torchrun.

HF_HOME is the home of the benchmarks before this starts. First every video of every benchmark is looked up, and a MISS
ends it all; then the model is loaded, and lmms-eval asks and scores one benchmark after the other.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker

from ov_model.errors import EvaluationFailed, OvError, UsageError
from ov_model.eval.adapter import OneVisionCodec
from ov_model.eval.benchmarks import Benchmark, Places, find_task
from ov_model.eval.compare import describe_reproduction, paired_difference, reproduction
from ov_model.eval.identity import code_hash, dataset_hash, library_versions
from ov_model.eval.questions import Documents, questions_of
from ov_model.eval.results import (
    REPORT,
    SCORES,
    Metric,
    ScoreRow,
    current,
    flat,
    headline_of,
    read_samples,
    sample_table,
    standard_error,
    write_scores,
)
from ov_model.eval.tasks import load_tasks, task_config, task_imports, task_manager
from ov_model.lake.files import hash_json, write_json
from ov_model.train.export import git_commit
from ov_model.train.processes import die_with_parent

log = logging.getLogger("ov")

EVAL_VERSION = 1
SEED = 1234
ANSWERS = "answers.jsonl"


@dataclass
class Exam:
    """One benchmark on its way from questions to scores."""

    benchmark: Benchmark
    tasks: dict[str, Any]
    adapter: OneVisionCodec
    report: dict[str, Any]
    identity: dict[str, str]
    folder: Path
    done: bool
    before: Path | None = None

    @property
    def run(self) -> str:
        """Identity and attempt."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def score(job: dict[str, Any], rank: int, world: int) -> dict[str, tuple[str, bool]]:
    """Score every benchmark of the job; benchmark -> (folder, whether it was finished before).

    Raises:
        MissingAssets: videos without a usable asset, before anything is generated.
        UsageError: training and evaluation differ in signal, and `require_signal` was asked for.
    """
    exams = [_prepare(job, find_task(name), rank, world) for name in job["tasks"]]
    model = None
    for exam in exams:
        if not exam.done:
            model = exam.adapter.model if model is None else model
            exam.adapter.use(model, exam.folder / ANSWERS, exam.folder / "shown.json")
            _sit(job, exam, rank)
    return {exam.benchmark.name: (str(exam.folder), exam.done) for exam in exams}


def _prepare(job: dict[str, Any], benchmark: Benchmark, rank: int, world: int) -> Exam:
    """Load the questions, look every video up, and find the folder of this evaluation."""
    home = Path(job["home"])
    tasks = load_tasks(benchmark, home)
    adapter = OneVisionCodec(
        pretrained=job["folder"],
        batch_size=job["batch_size"],
        device=job["device"],
        dtype=job["precision"],
        visual=job["visual"],
        fallback=job["fallback"],
        accept_unhashed=job["accept_unhashed"],
        offline_root=job["roots"] or None,
        home=job["home"],
        index_cache=str(Path(job["out"]) / "cache" / "index"),
    )
    adapter.task_dict = {name: task.dataset for name, task in tasks.items()}
    documents = Documents(adapter.task_dict)
    adapter.preflight.check(questions_of(list(_requests(tasks, job["limit"], rank, world)), documents), documents)
    report = adapter.preflight.report()
    agree = _signals_agree(job, benchmark, report)
    identity = _identity(job, benchmark, adapter, report)
    folder, done, before = _attempt(job, benchmark, hash_json(identity)[:16])
    report["notes"] = [agree] if agree else []
    return Exam(benchmark, tasks, adapter, report, identity, folder, done, before)


def _requests(tasks: dict[str, Any], limit: int | None, rank: int, world: int) -> Iterator[Any]:
    """The requests of this process, as lmms-eval will make them."""
    for task in tasks.values():
        task.build_all_requests(limit=limit, rank=rank, world_size=world)
        yield from task.instances


def _signals_agree(job: dict[str, Any], benchmark: Benchmark, report: dict[str, Any]) -> str:
    """What is to be said where training and evaluation differ in signal; empty where they agree.

    Raises:
        UsageError: they differ, or it is not known, and `require_signal` was asked for.
    """
    training, assets = job["training_signals"], report["signals"]
    if not assets or (training is not None and set(assets) <= set(training)):
        return ""
    if training is None:
        text = f"the checkpoint does not say on which signals it was trained; the assets' are {_told(assets)}"
    else:
        text = f"the assets' signals are {_told(assets)}, those of the training data {_told(training) or 'none'}"
    if job["require_signal"]:
        raise UsageError(
            f"{benchmark.name}: {text}; make assets with a signal of the training data (ov precompute --signal)"
        )
    log.warning("%s: %s", benchmark.name, text)
    return text


def _told(signals: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in signals.items())


def _identity(
    job: dict[str, Any], benchmark: Benchmark, adapter: OneVisionCodec, report: dict[str, Any]
) -> dict[str, str]:
    """All that decides the answers, as hashes."""
    options = {name: job[name] for name in ("visual", "fallback", "accept_unhashed", "batch_size", "limit")}
    options |= {"dtype": str(adapter.dtype), "device": adapter.device.type, "geometry": repr(adapter.geometry)}
    missing = [[one["task"], one["key"], one["status"]] for one in report["missing"]]
    data = Places(benchmark, Path(job["home"])).dataset
    return {
        "checkpoint": job["checkpoint_hash"],
        "dataset": dataset_hash(data) if data.is_dir() else "",
        "assets": hash_json([report["assets_hash"], missing])[:16],
        "config": hash_json(options)[:16],
        "code": code_hash(),
        "version": str(EVAL_VERSION),
    }


def _attempt(job: dict[str, Any], benchmark: Benchmark, identity: str) -> tuple[Path, bool, Path | None]:
    """The folder to score in, whether it is finished, and the finished run to hold it against.

    An unfinished attempt goes on. Held against is the attempt before this one, else the last run of another identity on
    the same kind of input.
    """
    home = Path(job["out"]) / benchmark.name
    folder = home / identity
    attempts = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    finished = [path for path in attempts if (path / SCORES).is_file()]
    if finished and attempts[-1] == finished[-1] and not job["rerun"]:
        return finished[-1], True, None
    number = int(attempts[-1].name) + (attempts[-1] in finished) if attempts else 0
    last = (home / current(job["visual"])).resolve()
    before = finished[-1] if finished else last if (last / SCORES).is_file() else None
    return folder / str(number), False, before


def _sit(job: dict[str, Any], exam: Exam, rank: int) -> None:
    """Let lmms-eval ask and score, then write what came of it."""
    started, clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    with task_imports():
        results = simple_evaluate(
            model=exam.adapter,
            tasks=[task_config(exam.benchmark, Path(job["home"]))],
            task_manager=task_manager([exam.benchmark]),
            batch_size=job["batch_size"],
            limit=job["limit"],
            bootstrap_iters=0,
            random_seed=0,
            numpy_random_seed=SEED,
            torch_random_seed=SEED,
            process_docs_parallel=1,
        )
    if rank:
        return
    assert results is not None
    samples = results.pop("samples")
    documents = exam.adapter.preflight.documents
    clusters = {(task, doc_id): video for (task, _, doc_id), (kind, video) in documents.items() if kind == "video"}
    table = sample_table(exam.tasks, samples, clusters, exam.benchmark.metric_part)
    _save(exam.folder, results, samples, job["name"])
    shown = exam.folder / "shown.json"
    exam.report |= json.loads(shown.read_bytes())
    rows = _rows(job, exam, results, table, started, time.perf_counter() - clock)
    report = exam.report | {"identity": exam.identity, "git_commit": git_commit(Path(__file__).parent)}
    report |= _compared(exam, rows[0], table)
    report["answers_hash"] = hash_json(table.select("task", "doc_id", "metric", "score", "answer").rows())[:16]
    write_json(exam.folder / REPORT, report)
    shown.unlink()
    write_scores(exam.folder, rows, table)
    _point_to(exam.folder.parent.parent / current(job["visual"]), exam.folder)


def _save(folder: Path, results: dict[str, Any], samples: dict[str, Any], name: str) -> None:
    """Results and samples as lmms-eval writes them; it logs a failure and goes on, here that is an error.

    Raises:
        EvaluationFailed: a file is not there.
    """
    tracker: Any = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name = name
    tracker.general_config_tracker.model_name_sanitized = ""
    for path in [*folder.glob("*_results.json"), *folder.glob("*_samples_*.jsonl")]:
        path.unlink()  # of an attempt that was cut off while it wrote them
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=results["date"])
    for task, logged in samples.items():
        tracker.save_results_samples(task_name=task, samples=logged)
    missing = [task for task, logged in samples.items() if logged and not list(folder.glob(f"*_samples_{task}.jsonl"))]
    if missing or not list(folder.glob("*_results.json")):
        raise EvaluationFailed(
            f"{folder}: lmms-eval did not save its results ({', '.join(missing) or 'results.json'}); is the disk full? "
            "Run the same again: the answers are kept"
        )


def _rows(
    job: dict[str, Any], exam: Exam, results: dict[str, Any], table: pl.DataFrame, started: str, seconds: float
) -> list[ScoreRow]:
    """A row per leaf task and metric, and the headline."""
    benchmark, report, counts = exam.benchmark, exam.report, exam.report["total"]
    found = []
    for name, task in exam.tasks.items():
        scores = results["results"][name]
        values = {key.split(",")[0]: value for key, value in scores.items() if key.split(",")[0] in task.aggregation()}
        found += [Metric(name, metric, value) for metric, value in flat(values)]
    headline = headline_of(benchmark, found, table)
    docs = {name: results["n-samples"][name]["original"] for name in exam.tasks}
    tokens = [task.config.generation_kwargs.get("max_new_tokens", 0) for task in exam.tasks.values()]
    rows = []
    for metric in [headline, *(one for one in found if one != headline)]:
        leaves = list(exam.tasks) if metric.task == benchmark.task else [metric.task]
        about = table.filter(pl.col("task").is_in(leaves))
        rows.append(
            ScoreRow(
                checkpoint=job["name"],
                checkpoint_hash=job["checkpoint_hash"],
                benchmark=benchmark.name,
                task=metric.task,
                metric=metric.name,
                headline=metric is headline,
                value=metric.value,
                percent=metric.value * benchmark.percent,
                stderr=standard_error(about.filter(metric=metric.key), benchmark.percent),
                run=exam.run,
                visual=job["visual"],
                fallback=job["fallback"],
                **{name: counts[name] for name in ("hit", "miss", "invalid", "unhashed", "frames", "images", "text")},
                samples=about.select("task", "doc_id").n_unique(),
                docs=sum(docs[leaf] for leaf in leaves),
                signals=json.dumps(report["signals"]),
                training_signals=json.dumps(job["training_signals"]),
                visual_tokens=report["visual_tokens"],
                max_new_tokens=max(tokens),
                config_hash=exam.identity["config"],
                assets_hash=exam.identity["assets"],
                dataset_hash=exam.identity["dataset"],
                code_hash=exam.identity["code"],
                versions=json.dumps(library_versions(), sort_keys=True),
                started_at=started,
                seconds=round(seconds, 3),
                folder=str(exam.folder),
            )
        )
    return rows


def _compared(exam: Exam, headline: ScoreRow, table: pl.DataFrame) -> dict[str, Any]:
    """Hold the run against the one before it: equal answers to equal questions, or the difference."""
    if exam.before is None:
        return {"reproduced": None, "difference": None, "compared_with": None}
    before = read_samples(exam.before)
    with_run = f"{exam.before.parent.name}/{exam.before.name}"
    told: dict[str, Any] = {"compared_with": with_run, "reproduced": None, "difference": None}
    if exam.before.parent == exam.folder.parent:
        found = reproduction(table, before)
        text = describe_reproduction(found)
        told["reproduced"] = {"equal": found.equal, "compared": found.compared, "differing": list(found.differing)}
    else:
        difference = paired_difference(table, before, headline.metric.partition("[")[0])
        text = "no document in both" if difference is None else str(difference)
        told["difference"] = None if difference is None else asdict(difference)
    return told | {"notes": [*exam.report["notes"], f"against {with_run}: {text}"]}


def _point_to(link: Path, folder: Path) -> None:
    """Let a relative link name the run that was finished last."""
    temporary_link = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary_link.unlink(missing_ok=True)
    temporary_link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
    temporary_link.replace(link)


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of an evaluation.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--agent", type=int, help="process id that this one must not outlive")
    options = parser.parse_args()
    if options.agent is not None:
        die_with_parent(options.agent)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("ov", "ov_model"):
        logging.getLogger(name).setLevel(logging.INFO)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    job: dict[str, Any] = json.loads(options.job.read_bytes())
    outcome, errors = options.job.with_name("outcome.json"), options.job.with_name("errors")
    try:
        scored = score(job, rank, world)
    except OvError as error:
        if rank == 0:
            write_json(outcome, {"error": type(error).__name__, "message": str(error)})
        os._exit(2)
    except BaseException as error:
        values = {"rank": rank, "time": time.time(), "error": type(error).__name__, "message": str(error)}
        write_json(errors / f"rank{rank}.json", values | {"traceback": traceback.format_exc()})
        os._exit(1)
    if rank == 0:
        write_json(outcome, {"scored": scored})
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
