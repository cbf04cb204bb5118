"""What must hold of a stage's outputs in a shard, as functions of the files and ledgers: no Dagster here.

A check looks at one shard, or at the whole dataset where the stage has no shards (`shard` is None).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.checks import (
    Problem,
    check_against_visidx,
    check_images,
    check_positions,
    check_row,
    read_positions,
    row_images,
)
from ov_model.geometry import Geometry
from ov_model.lake.dataset import RECORDS, TRAIN_JSONL, TRAINING_JSONL, Dataset
from ov_model.lake.layout import POSITIONS, VISIDX_SUFFIX, Shard
from ov_model.lake.ledger import FAILED, OK, PASSED, SCHEMA
from ov_model.lake.mixture import MixtureSpec, line_spans, plan_counts
from ov_model.lake.records import count_placeholders

_SHOWN = 10


@dataclass(frozen=True)
class Scope:
    """What a check looks at: a stage, in one shard or in all; `upstream` is the stage that it reads."""

    dataset: Dataset
    stage: str
    upstream: str
    shard: Shard | None
    failure_limit: float

    @property
    def geometry(self) -> Geometry:
        """Geometry of the dataset."""
        return self.dataset.spec.pack.geometry

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards in question."""
        return self.dataset.shards if self.shard is None else [self.shard]

    def rows(self, stage: str | None = None) -> pl.DataFrame:
        """The ledger rows of a stage, by default the checked one; those of the index for `records`."""
        stage = stage or self.stage
        if stage == RECORDS:
            return pl.concat([_index_rows(self.dataset, shard) for shard in self.shards])
        ledger = TRAINING_JSONL if stage == TRAIN_JSONL else stage
        return pl.concat([self.dataset.ledger(ledger, shard) for shard in self.shards])

    def jsonl_files(self) -> list[Path]:
        """The JSONL files that the checked stage writes."""
        if self.stage == TRAIN_JSONL:
            return [self.dataset.root / "train.jsonl"]
        if self.stage == TRAINING_JSONL:
            return [self.dataset.root / "jsonl" / f"{shard.key}.jsonl" for shard in self.shards]
        return []


def _index_rows(dataset: Dataset, shard: Shard) -> pl.DataFrame:
    """The records of a shard in the columns that ledgers share."""
    rows = []
    for record in dataset.records(shard):
        error = record.error
        status, reason, detail = (FAILED, error.reason, str(error)) if error else (OK, "", "")
        rows.append((record.row, record.key, record.id, status, reason, detail))
    columns = ("row", "key", "id", "status", "reason", "detail")
    return pl.DataFrame(rows, schema={name: SCHEMA[name] for name in columns}, orient="row")


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, in one sentence, with numbers and the first offenders.

    Args:
        tolerated: somebody asked for what failed, by name: told, but nothing stops for it.
    """

    passed: bool
    summary: str
    numbers: dict[str, int | float] = field(default_factory=dict)
    offenders: tuple[str, ...] = ()
    tolerated: bool = False


@dataclass(frozen=True)
class Check:
    """A named check. `blocking`: what is downstream stops when it fails; else it warns."""

    name: str
    description: str
    run: Callable[[Scope], Finding]
    blocking: bool = True


def _counts_agree(scope: Scope) -> Finding:
    """Every record of the stage before has its row here; a JSONL has a line per usable row."""
    here, there = scope.rows(), scope.rows(scope.upstream)
    numbers = {"rows": here.height, f"rows of {scope.upstream}": there.height}
    missing = there.filter(~pl.col("key").is_in(here["key"].implode()))
    unknown = here.filter(~pl.col("key").is_in(there["key"].implode()))
    offenders = [f"{key} has no row" for key in missing["key"]]
    offenders += [f"{key} is not in {scope.upstream}" for key in unknown["key"]]
    if files := scope.jsonl_files():
        usable = here.filter(pl.col("status").is_in([OK, PASSED])).height
        lines = sum(1 for _ in _jsonl_rows(files))
        numbers |= {"usable rows": usable, "lines": lines}
        if lines != usable:
            offenders.append(f"{lines} lines for {usable} usable rows")
    return finding(offenders, f"{here.height} rows, as many as in {scope.upstream}", numbers)


def _failures_under_limit(scope: Scope) -> Finding:
    rows = scope.rows()
    failed = rows.filter(pl.col("status") == FAILED)
    share = failed.height / rows.height if rows.height else 0.0
    summary = f"{failed.height} of {rows.height} samples failed ({share:.1%}; limit {scope.failure_limit:.1%})"
    reasons = failed["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False]).iter_rows()
    summary += "".join(f", {count} {reason}" for reason, count in reasons)
    offenders = [f"{row['id'] or row['row']}: {row['reason']}: {row['detail']}" for row in failed.iter_rows(named=True)]
    numbers = {"failed": failed.height, "rows": rows.height, "share": share, "limit": scope.failure_limit}
    return Finding(share <= scope.failure_limit, summary, numbers, tuple(offenders[:_SHOWN]))


def _positions_valid(scope: Scope) -> Finding:
    """int32 [K, 3], in range, unique but for recorded repeats; of mosaics also sorted, and as in visidx."""
    is_mosaics = scope.stage == "mosaics"
    geometry = scope.geometry
    facts = {row["row"]: json.loads(row["facts"]) for row in _videos(scope.rows("visidx"))}
    chosen = {row["row"]: _output(scope, row, VISIDX_SUFFIX) for row in _videos(scope.rows("visidx"))}
    problems: list[str] = []
    files = 0
    for row in _videos(scope.rows()):
        path = _output(scope, row, POSITIONS if is_mosaics else VISIDX_SUFFIX)
        pos, faults = read_positions(path)
        files += 1
        fact = facts.get(row["row"], {})
        if pos is not None:
            faults = check_positions(
                pos,
                geometry,
                first_full=bool(fact.get("first_full")),
                repeated=int(fact.get("repeated", 0)),
                ordered=is_mosaics,
                name=str(path),
            )
        if pos is not None and not faults and is_mosaics:
            visidx, faults = read_positions(chosen[row["row"]])
            if visidx is not None:
                faults = check_against_visidx(pos, visidx, str(path))
        problems += _messages(faults)
    return finding(problems, f"{files} files of positions are in order", {"files": files})


def _images_open(scope: Scope) -> Finding:
    problems: list[str] = []
    images = 0
    for row in _videos(scope.rows()):
        paths = [scope.dataset.root / path for path in row["outputs"] if path.endswith(".jpg")]
        images += len(paths)
        if len(paths) != scope.geometry.num_images:
            problems.append(f"{row['id']}: {len(paths)} mosaics, expected {scope.geometry.num_images}")
        problems += _messages(check_images(paths, scope.geometry))
    side = scope.geometry.square_size
    return finding(problems, f"{images} images open at {side} x {side}", {"images": images})


def _placeholders_match(scope: Scope) -> Finding:
    problems: list[str] = []
    rows = 0
    for place, row in _jsonl_rows(scope.jsonl_files()):
        rows += 1
        problems += [f"{place}: {message}" for message in _messages(check_row(row, scope.geometry))]
    return finding(problems, f"{rows} rows have as many <image> as images", {"rows": rows})


def _one_signal(scope: Scope) -> Finding:
    signals = Counter(row["signal"] for row in _videos(scope.rows()))
    shown = ", ".join(f"{name}: {count}" for name, count in sorted(signals.items())) or "no videos"
    summary = f"scored by {shown}" if len(signals) < 2 else f"scored by different signals ({shown})"
    return Finding(len(signals) < 2, summary, dict(signals))


COUNTS_AGREE = Check("counts_agree", "Each record of the stage before has its row here.", _counts_agree)
FAILURES_UNDER_LIMIT = Check(
    "failures_under_limit", "The share of samples that failed is within failure_limit.", _failures_under_limit
)
POSITIONS_VALID = Check(
    "positions_valid", "Positions are int32 [K, 3], in range, unique where they must be.", _positions_valid
)
IMAGES_OPEN = Check("images_open", "Every mosaic opens to its end at the right size.", _images_open)
PLACEHOLDERS_MATCH = Check(
    "placeholders_match",
    "Every row has as many `<image>` as images, and the published fields.",
    _placeholders_match,
)
ONE_SIGNAL = Check("one_signal", "All videos were scored by one signal (a warning).", _one_signal, blocking=False)


MIXTURE_CHECKS = {
    "counts_agree": "The mixture has the rows that were planned of each dataset.",
    "placeholders_match": "Every row has as many `<image>` as images.",
    "files_exist": "Every image and every file of positions is where its row says.",
}


def check_mixture(spec: MixtureSpec) -> dict[str, Finding]:
    """The checks of a mixture by name."""
    planned = plan_counts(spec, {source.name: len(line_spans(source.jsonl)) for source in spec.sources})
    wanted = sum(planned.values())
    rows, unmatched, absent = 0, [], []
    for place, row in _jsonl_rows([spec.out]):
        rows += 1
        images = row_images(row)
        found = count_placeholders(row["conversations"])
        if found != len(images):
            unmatched.append(f"{place}: {found} <image> for {len(images)} images")
        files = [*images, *filter(None, [row.get("positions_thw")])]
        absent += [f"{place}: {path} does not exist" for path in files if not (spec.out.parent / path).is_file()]
    counts = [] if rows == wanted else [f"{rows} rows, planned were {wanted}"]
    return {
        "counts_agree": finding(counts, f"{rows} rows as planned", {"rows": rows, **planned}),
        "placeholders_match": finding(unmatched, f"{rows} rows have as many <image> as images", {"rows": rows}),
        "files_exist": finding(absent, f"the files of {rows} rows are there", {"rows": rows}),
    }


def finding(offenders: Sequence[str], well: str, numbers: dict[str, Any]) -> Finding:
    """What was found: well where there are no offenders, else the first of them."""
    if not offenders:
        return Finding(True, well, numbers)
    summary = offenders[0] if len(offenders) == 1 else f"{len(offenders)} problems, the first: {offenders[0]}"
    return Finding(False, summary, numbers | {"problems": len(offenders)}, tuple(offenders[:_SHOWN]))


def _messages(problems: Sequence[Problem]) -> list[str]:
    return [problem.message for problem in problems]


def _videos(ledger: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return ledger.filter((pl.col("status") == OK) & (pl.col("kind") == "video")).iter_rows(named=True)


def _output(scope: Scope, row: dict[str, Any], suffix: str) -> Path:
    """The output of a ledger row whose name ends so; a path that does not exist where the row names none."""
    names = [path for path in row["outputs"] if path.endswith(suffix)]
    return scope.dataset.root / (names[0] if names else f"(no {suffix} recorded for {row['id']})")


def _jsonl_rows(paths: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path.name} line {number}", json.loads(line)
