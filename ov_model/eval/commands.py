"""`ov benchmark list` and `ov benchmark prepare`: what they print, and what their exit codes say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ov_model.errors import UsageError
from ov_model.eval.benchmarks import BENCHMARKS, Benchmark, find_benchmark, the_eight
from ov_model.eval.prepare import Outcome, Prepared, PrepareOptions, prepare_all
from ov_model.eval.state import local_state

_SHOWN_MISSING = 20
_SHORT = 12


def list_benchmarks(home: Path) -> list[dict[str, Any]]:
    """Every benchmark of the registry with what lies at `home`, as plain values."""
    rows = []
    for benchmark in BENCHMARKS.values():
        entry = asdict(benchmark)
        rows.append({**entry, "needs_token": benchmark.needs_token, "local": asdict(local_state(benchmark, home))})
    return rows


def print_benchmarks(home: Path, console: Console) -> None:
    """The registry as a table."""
    table = Table(
        "name", "lmms-eval task", "access", "license", "questions", "published codec/frames", "here",
        "videos", "assets", "GB", "revision", title=f"Benchmarks, and what lies at {home}",
    )  # fmt: skip
    for benchmark in BENCHMARKS.values():
        local = local_state(benchmark, home)
        published = benchmark.published
        table.add_row(
            benchmark.name + (" (extra)" if benchmark.extra else ""),
            benchmark.task,
            "made here" if benchmark.builder else "token, terms" if benchmark.gated else "open",
            benchmark.license or "?",
            str(benchmark.num_samples or "?"),
            f"{published.codec}/{published.frames}" if published else "none",
            local.state,
            f"{local.videos}" + (f", {local.missing} missing" if local.missing else ""),
            str(local.assets),
            f"{local.size / 1e9:.2f}",
            local.revision[:_SHORT],
        )
    console.print(table)


def choose(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name; `all` is the eight, without extras and those made here.

    Raises:
        UsageError: no name, an unknown one.
    """
    if not names:
        raise UsageError("name the benchmarks to prepare, or all; `ov benchmark list` shows them")
    chosen: dict[str, Benchmark] = {}
    for name in names:
        for benchmark in the_eight() if name == "all" else [find_benchmark(name)]:
            chosen[benchmark.name] = benchmark
    return list(chosen.values())


def prepare_named(names: Sequence[str], home: Path, options: PrepareOptions, console: Console) -> int:
    """Prepare benchmarks and print how each went.

    Returns 0 when all are prepared, 3 when some failed or lack videos, 1 when none is prepared.

    Raises:
        UsageError: an unknown name, or one revision for several data sets.
    """
    benchmarks = choose(names)
    if options.revision is not None and len(benchmarks) > 1:
        raise UsageError("--revision is of one data set: name one benchmark")
    outcomes = prepare_all(benchmarks, home, options)
    table = Table("benchmark", "outcome", "videos", "missing", "downloaded MB", "GB", "revision", "s")
    for outcome in outcomes:
        table.add_row(*_cells(outcome))
    console.print(table)
    for outcome in outcomes:
        if outcome.error is not None:
            console.print(f"{outcome.benchmark.name}: {outcome.error}", soft_wrap=True, markup=False, highlight=False)
        elif outcome.prepared is not None:
            _print_notes(outcome.prepared, console)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed == len(outcomes):
        return 1
    return 3 if failed or any(o.prepared is not None and o.prepared.missing for o in outcomes) else 0


def _cells(outcome: Outcome) -> list[str]:
    done = outcome.prepared
    if done is None:
        return [outcome.benchmark.name, f"failed: {type(outcome.error).__name__}", "", "", "", "", "", ""]
    return [
        outcome.benchmark.name,
        "already there, nothing touched" if done.untouched else "prepared",
        str(done.videos),
        str(len(done.missing)),
        f"{done.downloaded / 1e6:.1f}",
        f"{done.size / 1e9:.2f}",
        done.revision[:_SHORT],
        f"{done.seconds:.1f}",
    ]


def _print_notes(done: Prepared, console: Console) -> None:
    name = done.benchmark.name
    if done.shared:
        console.print(f"{name}: {done.shared} videos share a file name with another; their keys hold their folders")
    if done.missing:
        console.print(
            f"{name}: {len(done.missing)} videos that its questions name are in no archive of the data set; look for a "
            f"newer revision: ov benchmark prepare {name} --update",
            soft_wrap=True,
        )
        for path in done.missing[:_SHOWN_MISSING]:
            console.print(f"  {path}", soft_wrap=True, markup=False, highlight=False)
