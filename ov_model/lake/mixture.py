"""Join training JSONLs into one, by weight or by count: `mix(MixtureSpec(...))`.

The draw depends on the seed, the sources' names and their row numbers only, so it is the same on every
machine, and rows that a source gains later leave the order of the others alone. A source is never loaded: its
rows are found by offset.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ov_model.errors import UpstreamError, UsageError
from ov_model.lake.files import atomic_write, hash_file, hash_json, write_json

STAGE_VERSION = 1
PATH_FIELDS = ("image", "positions_thw", "video")


@dataclass(frozen=True)
class MixtureSource:
    """One training JSONL and how much of it is taken: `count` rows, else by `weight` (see `plan_counts`)."""

    name: str
    jsonl: Path
    weight: float = 1.0
    count: int | None = None


@dataclass(frozen=True)
class MixtureSpec:
    """What is joined, where to, and how it is drawn.

    Raises:
        UsageError: no source, a name twice, a negative weight or count, or a size that the counts exceed.
    """

    name: str
    out: Path
    sources: tuple[MixtureSource, ...]
    seed: int = 0
    size: int | None = None
    shuffle: bool = True
    paths: Literal["absolute", "relative"] = "absolute"

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names:
            raise UsageError(f"mixture {self.name}: no source; name at least one dataset")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"mixture {self.name}: {', '.join(twice)} is named twice; name it once")
        for source in self.sources:
            amount = source.weight if source.count is None else source.count
            if not 0 <= amount < float("inf"):
                raise UsageError(f"mixture {self.name}: {source.name} is to give {amount}, expected 0 or more")
        counted = sum(source.count or 0 for source in self.sources)
        if self.size is not None and counted > self.size:
            raise UsageError(
                f"mixture {self.name}: the counts add up to {counted}, above its size {self.size}; raise it"
            )

    @property
    def config_hash(self) -> str:
        """Hash of everything that decides the rows and their order, the files' places left out."""
        options = asdict(self) | {"out": None, "stage_version": STAGE_VERSION}
        options["sources"] = [asdict(source) | {"jsonl": None} for source in self.sources]
        return hash_json(options)


@dataclass(frozen=True)
class MixtureReport:
    """What one call of `mix` did; `counts` and `available`: rows taken and rows there, by source."""

    rows: int
    counts: dict[str, int]
    available: dict[str, int]
    reused: bool
    seconds: float
    bytes: int
    config_hash: str
    data_version: str
    out: Path
    manifest: Path


def plan_counts(spec: MixtureSpec, available: Mapping[str, int]) -> dict[str, int]:
    """How many rows each source gives.

    A source with a `count` gives exactly that many. Without a `size`, a weight is the number of passes
    through the source (2 = every row twice, 0.5 = half of them). With a `size`, what the counts leave is
    shared in proportion to the weights, by largest remainder, so that the sum is the size.

    Raises:
        UsageError: rows are wanted of an empty source, or a size is left over that no weight takes.
    """
    counts = {source.name: source.count for source in spec.sources if source.count is not None}
    weighted = [source for source in spec.sources if source.count is None]
    if spec.size is None:
        counts |= {source.name: round(source.weight * available[source.name]) for source in weighted}
    else:
        left = spec.size - sum(counts.values())
        total = sum(source.weight for source in weighted)
        if left and not total:
            raise UsageError(f"mixture {spec.name}: {left} of {spec.size} rows are left and no weight takes them")
        exact = [left * source.weight / total if total else 0.0 for source in weighted]
        floors = [int(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: (floors[i] - exact[i], i))
        for i in by_remainder[: left - sum(floors)]:
            floors[i] += 1
        counts |= {source.name: share for source, share in zip(weighted, floors, strict=True)}
    for name, count in counts.items():
        if count and not available[name]:
            raise UsageError(f"mixture {spec.name}: {count} rows are wanted of {name}, which has none; drop it")
    return {source.name: counts[source.name] for source in spec.sources}


def draw(spec: MixtureSpec, available: Mapping[str, int]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of the mixture in order: source_N int32 (index into `spec.sources`), row_N int64 (its row).

    A source is passed through whole as often as its count allows; the last, partial pass takes the rows with
    the smallest keys. Shuffled, rows come by key over all sources; else source by source, pass by pass, in
    row order.
    """
    counts = plan_counts(spec, available)
    sources, rows, keys = [], [], []
    for i, source in enumerate(spec.sources):
        total, count = available[source.name], counts[source.name]
        for nth in range(-(-count // total) if count else 0):
            key_R = _row_keys(spec.seed, source.name, nth, total)
            take = min(total, count - nth * total)
            row_n = np.sort(np.argsort(key_R, kind="stable")[:take])
            sources.append(np.full(take, i, np.int32))
            rows.append(row_n)
            keys.append(key_R[row_n])
    if not sources:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    source_N, row_N = np.concatenate(sources), np.concatenate(rows).astype(np.int64)
    if spec.shuffle:
        order_N = np.argsort(np.concatenate(keys), kind="stable")
        source_N, row_N = source_N[order_N], row_N[order_N]
    return source_N, row_N


def _row_keys(seed: int, name: str, nth: int, rows: int) -> NDArray[np.uint64]:
    """A random key per row, uint64 [rows]: splitmix64 of the row number, started by seed, source and pass."""
    start = int.from_bytes(hashlib.sha256(f"{seed}|{name}|{nth}".encode()).digest()[:8], "little")
    key_R = np.uint64(start) + np.arange(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    key_R = (key_R ^ (key_R >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key_R = (key_R ^ (key_R >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key_R ^ (key_R >> np.uint64(31))


def line_spans(path: Path) -> NDArray[np.int64]:
    """First byte and end of every line that is not blank, int64 [R, 2]; reads the file once, in blocks."""
    ends, size = [], 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + size + 1)
            size += len(block)
    end_R = np.concatenate([*ends, [size]]).astype(np.int64)
    span_R2 = np.stack([np.concatenate([[0], end_R[:-1]]), end_R], axis=1)
    return span_R2[span_R2[:, 1] - span_R2[:, 0] > 1]


def relocate(row: dict[str, Any], base: Path, relative_to: Path | None) -> dict[str, Any]:
    """The row with its paths, relative ones read from `base`, made absolute or relative to `relative_to`."""

    def place(path: str) -> str:
        absolute = os.path.normpath(base / path)
        return absolute if relative_to is None else os.path.relpath(absolute, relative_to)

    moved = dict(row)
    for field in PATH_FIELDS:
        value = row.get(field)
        if isinstance(value, str):
            moved[field] = place(value)
        elif isinstance(value, list):
            moved[field] = [place(path) for path in value]
    return moved


def mix(spec: MixtureSpec) -> MixtureReport:
    """Write the mixture to `spec.out`, and beside it the manifest that says what it was made from.

    Nothing is written when the manifest shows the same options and the same inputs.

    Raises:
        UpstreamError: a source's JSONL is missing.
        UsageError: see `plan_counts`.
    """
    started = time.perf_counter()
    for source in spec.sources:
        if not source.jsonl.is_file():
            raise UpstreamError(
                f"mixture {spec.name}: {source.jsonl} is missing; materialize {source.name}/train_jsonl first"
            )
    manifest = spec.out.with_name(spec.out.name + ".manifest.json")
    done = _read_manifest(manifest)
    wanted = {
        "config_hash": spec.config_hash,
        "inputs": {source.name: hash_file(source.jsonl) for source in spec.sources},
        "bases": {source.name: str(source.jsonl.parent) for source in spec.sources},
    }
    reused = all(done.get(key) == value for key, value in wanted.items()) and _is_whole(spec.out, done)
    if not reused:
        spans = {source.name: line_spans(source.jsonl) for source in spec.sources}
        available = {name: len(span_R2) for name, span_R2 in spans.items()}
        with atomic_write(spec.out) as file:
            for line in _lines(spec, spans):
                file.write(line)
        done = wanted | {
            "counts": plan_counts(spec, available),
            "available": available,
            "bytes": spec.out.stat().st_size,
            "data_version": hash_file(spec.out),
        }
        write_json(manifest, done)
    return MixtureReport(
        rows=sum(done["counts"].values()),
        counts=done["counts"],
        available=done["available"],
        reused=reused,
        seconds=time.perf_counter() - started,
        bytes=done["bytes"],
        config_hash=spec.config_hash,
        data_version=done["data_version"],
        out=spec.out,
        manifest=manifest,
    )


def _lines(spec: MixtureSpec, spans: Mapping[str, NDArray[np.int64]]) -> Iterator[bytes]:
    relative_to = spec.out.parent.absolute() if spec.paths == "relative" else None
    source_N, row_N = draw(spec, {name: len(span_R2) for name, span_R2 in spans.items()})
    with ExitStack() as stack:
        files = [stack.enter_context(source.jsonl.open("rb")) for source in spec.sources]
        for i, row in zip(source_N.tolist(), row_N.tolist(), strict=True):
            start, end = spans[spec.sources[i].name][row].tolist()
            files[i].seek(start)
            record = json.loads(files[i].read(end - start))
            moved = relocate(record, spec.sources[i].jsonl.parent.absolute(), relative_to)
            yield json.dumps(moved, ensure_ascii=False).encode() + b"\n"


def _read_manifest(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _is_whole(out: Path, done: Mapping[str, Any]) -> bool:
    return out.is_file() and out.stat().st_size == done.get("bytes")
