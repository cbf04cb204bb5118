"""Where offline assets lie: an index over several roots, read once, kept on disk, looked up by (task, key).

    index = OfflineIndex.open([Path("videomme_offline/assets")], cache=Path("index"))
    index.find("videomme", candidate_keys(Path("data/abc.mp4")))

A root is an `assets/` folder with a folder for each video. It is only read; the cache lies where the caller says.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.errors import UsageError
from ov_model.eval.asset import AssetFault, options_hash, read_meta
from ov_model.eval.benchmarks import BENCHMARKS, Benchmark
from ov_model.eval.keys import video_stem
from ov_model.lake.files import atomic_write, hash_json
from ov_model.lake.layout import ASSET_META, short_sha1

log = logging.getLogger(__name__)

REFERENCE_HOME = Path(".huggingface_cache")
_OFFLINE = "_offline"
_DEPTH = 8
_SCHEMA: dict[str, Any] = {
    "folder": pl.String,
    "meta_size": pl.Int64,
    "meta_mtime_ns": pl.Int64,
    "key": pl.String,
    "task": pl.String,
    "content_hash": pl.String,
    "size": pl.Int64,
    "signal": pl.String,
    "output_hash": pl.String,
    "options_hash": pl.String,
    "cfg": pl.String,
    "fault": pl.String,
    "status": pl.String,
}
_ABSENT = -1


@dataclass(frozen=True)
class Asset:
    """An asset as its meta describes it.

    Args:
        content_hash, size: of the video it was made from; empty and -1 where the writer left them out.
        output_hash: of its files; may be empty. options_hash: see `ov_model.eval.asset.options_hash`.
        cfg: JSON text of the reference's options.
        fault, status: why the meta cannot be used, and whether that is a `miss` or `invalid`; else empty.
    """

    root: Path
    folder: str
    key: str
    task: str
    content_hash: str
    size: int
    signal: str
    output_hash: str
    options_hash: str
    cfg: str
    fault: str
    status: str

    @property
    def path(self) -> Path:
        return self.root / self.folder

    @cached_property
    def options(self) -> dict[str, Any]:
        """The reference's options that it was made with."""
        return json.loads(self.cfg)


@dataclass(frozen=True)
class RootReport:
    """What opening a root took: assets there, metas read now, metas that cannot be used."""

    root: Path
    assets: int
    read: int
    faulty: int


class OfflineIndex:
    """The assets of several roots; an earlier root comes first among those of equal key."""

    def __init__(self, parts: Sequence[tuple[Path, pl.DataFrame]], reports: Sequence[RootReport]) -> None:
        self.reports = tuple(reports)
        self._parts = tuple(parts)
        self._places: dict[str, list[tuple[int, int]]] = {}
        for number, (_, frame) in enumerate(self._parts):
            for row, (folder, key) in enumerate(frame.select("folder", "key").iter_rows()):
                self._places.setdefault(folder, []).append((number, row))
                if key != folder:
                    self._places.setdefault(key, []).append((number, row))

    @classmethod
    def open(cls, roots: Sequence[Path], *, cache: Path | None = None, threads: int = 8) -> OfflineIndex:
        """Index the roots; metas whose size and modification time are those of the cache are not read again.

        Args:
            cache: folder of the cached index, one Parquet file a root; None keeps none.

        Raises:
            UsageError: a root is no folder.
        """
        parts, reports = [], []
        for root in dict.fromkeys(path.resolve() for path in roots):
            if not root.is_dir():
                raise UsageError(
                    f"offline root {root}: no such folder; name an assets/ folder that ov precompute wrote"
                )
            frame, report = _open_root(root, cache, threads)
            parts.append((root, frame))
            reports.append(report)
        return cls(parts, reports)

    def __len__(self) -> int:
        return sum(frame.height for _, frame in self._parts)

    @property
    def roots(self) -> tuple[Path, ...]:
        return tuple(root for root, _ in self._parts)

    def find(self, task: str, keys: Iterable[str]) -> tuple[Asset, ...]:
        """Assets of these keys that belong to the task's benchmark, by key, then by root."""
        found: dict[tuple[int, int], Asset] = {}
        for key in keys:
            for place in self._places.get(key, ()):
                if place not in found:
                    asset = self._asset(*place)
                    if same_benchmark(task, asset.task):
                        found[place] = asset
        return tuple(found.values())

    def duplicates(self) -> dict[tuple[str, str], list[Path]]:
        """(task, key) -> folders, where one root holds several assets of that name."""
        repeated: dict[tuple[str, str], list[Path]] = {}
        for root, frame in self._parts:
            groups: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
            for task, key, folder in frame.select("task", "key", "folder").iter_rows():
                groups[task, key].append(root / folder)
            repeated |= {name: folders for name, folders in groups.items() if len(folders) > 1}
        return repeated

    def _asset(self, number: int, row: int) -> Asset:
        root, frame = self._parts[number]
        values = frame.row(row, named=True)
        del values["meta_size"], values["meta_mtime_ns"]
        return Asset(root, **values)


def candidate_keys(video: Path) -> tuple[str, ...]:
    """Keys that a video's asset may have (`ov_model.eval.keys`), whatever folder they were made below.

    The most telling come first: the path below some folder flattened, with and without the hash that keeps equal ones
    apart; last the stem alone.
    """
    stem = video_stem(video)
    parents = [part for part in video.parts[:-1] if part != video.anchor][-_DEPTH:]
    names = [f"{short_sha1(str(video.parent))}__{stem}"]
    for start in range(len(parents) + 1):
        key = "__".join([*parents[start:], stem])
        names += [f"{key}__{short_sha1('/'.join([*parents[start:], video.name]))}", key]
    return tuple(dict.fromkeys(names))


def benchmark_of(task: str) -> Benchmark | None:
    """The registered benchmark that a task belongs to: by its names, else the longest that begins the task's name."""
    best: tuple[int, Benchmark | None] = (0, None)
    for benchmark in BENCHMARKS.values():
        for name in (benchmark.name, benchmark.task):
            if (task == name or task.startswith(f"{name}_")) and len(name) > best[0]:
                best = (len(name), benchmark)
    return best[1]


def family(task: str) -> str:
    """What the leaf tasks of one benchmark share: the benchmark's lmms-eval name, else the task itself."""
    benchmark = benchmark_of(task)
    return task if benchmark is None else benchmark.task


def same_benchmark(task: str, other: str) -> bool:
    """Whether an asset made for one task may serve another; an asset without a task serves any."""
    if not other or family(task) == family(other):
        return True
    return task.startswith(f"{other}_") or other.startswith(f"{task}_")


@dataclass(frozen=True)
class Roots:
    """Roots taken, and every place that was looked at."""

    taken: tuple[Path, ...]
    looked: tuple[Path, ...]


def find_roots(home: Path, tasks: Iterable[str]) -> Roots:
    """The tasks' `<name>_offline/assets` below the home and `.huggingface_cache`, by short and by lmms-eval name.

    Raises:
        UsageError: a task has more than one; the choice has to be named.
    """
    taken: dict[Path, None] = {}
    looked: dict[Path, None] = {}
    for name in dict.fromkeys(family(task) for task in tasks):
        benchmark = benchmark_of(name)
        names = dict.fromkeys([name, name if benchmark is None else benchmark.name])
        places = [base / f"{one}{_OFFLINE}" / "assets" for base in (home, REFERENCE_HOME) for one in names]
        looked |= dict.fromkeys(places)
        there = dict.fromkeys(place.resolve() for place in places if place.is_dir())
        if len(there) > 1:
            raise UsageError(
                f"{name}: assets in {' and in '.join(map(str, there))}; name the one to take with --offline_root "
                "(LLAVA_CODEC_OFFLINE_ROOT)"
            )
        for root in there:
            log.info("%s: assets of %s", name, root)
        taken |= there
    return Roots(tuple(taken), tuple(looked))


def _open_root(root: Path, cache: Path | None, threads: int) -> tuple[pl.DataFrame, RootReport]:
    present = _scan(root)
    path = None if cache is None else cache / f"assets.{hash_json(str(root))[:16]}.parquet"
    before = _cached(path)
    known = {
        folder: (row, size, mtime)
        for row, (folder, size, mtime) in enumerate(before.select("folder", "meta_size", "meta_mtime_ns").iter_rows())
    }
    kept: list[int] = []
    changed: list[tuple[str, int, int]] = []
    for folder, size, mtime in present:
        row, *state = known.get(folder, (0, 0, 0))
        if state == [size, mtime] and size != _ABSENT:
            kept.append(row)
        else:
            changed.append((folder, size, mtime))
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        read = list(pool.map(lambda one: _describe(root, *one), changed))
    fresh = pl.DataFrame({name: [row[name] for row in read] for name in _SCHEMA}, schema=_SCHEMA)
    frame = pl.concat([before[kept], fresh]).sort("folder")
    if path is not None and (changed or len(kept) != before.height):
        try:
            with atomic_write(path) as stream:
                frame.write_parquet(stream)
        except OSError as error:
            log.warning("%s: the index is not kept: %s", path, error)
    faulty = frame.filter(pl.col("fault") != "").height
    if faulty:
        log.warning("%s: %d of %d assets have no usable %s", root, faulty, frame.height, ASSET_META)
    return frame, RootReport(root, frame.height, len(read), faulty)


def _cached(path: Path | None) -> pl.DataFrame:
    """The frame of an earlier opening; empty where there is none, or one of another version."""
    if path is not None and path.is_file():
        try:
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            log.warning("%s: cached index is unreadable (%s) and is built anew", path, error)
        else:
            if dict(frame.schema) == _SCHEMA:
                return frame
    return pl.DataFrame(schema=_SCHEMA)


def _scan(root: Path) -> list[tuple[str, int, int]]:
    """(folder, size and mtime_ns of its meta), by name; size -1 where there is no meta."""

    def state(folder: str) -> tuple[str, int, int]:
        try:
            stat = os.stat(f"{root}/{folder}/{ASSET_META}")
        except OSError:
            return folder, _ABSENT, 0
        return folder, stat.st_size, stat.st_mtime_ns

    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [state(folder) for folder in folders]


def _describe(root: Path, folder: str, meta_size: int, meta_mtime_ns: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SCHEMA, "")
    row |= {"folder": folder, "key": folder, "meta_size": meta_size, "meta_mtime_ns": meta_mtime_ns}
    row |= {"size": _ABSENT, "cfg": "{}", "task": _task_of(root)}
    try:
        meta = read_meta(root / folder)
    except AssetFault as fault:
        return row | {"fault": str(fault), "status": fault.status}
    size = meta.get("size")
    return row | {
        "key": _text(meta, "key") or folder,
        "task": _text(meta, "task") or row["task"],
        "content_hash": _text(meta, "content_hash"),
        "size": size if isinstance(size, int) else _ABSENT,
        "signal": _text(meta, "signal"),
        "output_hash": _text(meta, "output_hash"),
        "options_hash": options_hash(meta),
        "cfg": json.dumps(meta.get("cfg") or {}, sort_keys=True),
    }


def _text(meta: dict[str, Any], name: str) -> str:
    value = meta.get(name)
    return value if isinstance(value, str) else ""


def _task_of(root: Path) -> str:
    """The task of assets whose metas name none: that of `<task>_offline/assets`."""
    name = root.parent.name
    return name.removesuffix(_OFFLINE) if name.endswith(_OFFLINE) else ""
