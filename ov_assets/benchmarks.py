"""Benchmarks as steps: videos and questions prepared, codec assets computed; what is told, what must hold of them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import TypeAdapter, ValidationError

from ov_assets.checks import Finding, finding
from ov_assets.metadata import Product, ledger_table, table, work_done
from ov_assets.previews import BUDGET_BYTES, Pack, plot, preview_markdown
from ov_model.checks import check_images, check_positions, read_positions
from ov_model.energy_plot import energy_plot
from ov_model.errors import UpstreamError, UsageError
from ov_model.eval.benchmarks import Places, find_benchmark
from ov_model.eval.prepare import Prepared, PrepareOptions, prepare
from ov_model.eval.state import State
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_file, hash_json, read_array
from ov_model.lake.layout import ASSET_META, FRAME_IDS, POSITIONS, Shard, ledger_path
from ov_model.lake.ledger import FAILED, OK, Report, read_ledger
from ov_model.lake.stages import ASSETS, AssetsStage
from ov_model.lake.workers import RunOptions
from ov_model.plots import LINE, draw_counts
from ov_model.precompute import PrecomputeConfig, run

_NOT_HERE = ("num_shards", "shard_id", "max_samples", "media_root", "allowed_roots", "overwrite", "retry_failed")
_PREVIEWED, _SAMPLE_ROWS, _FAILURE_ROWS, _SHOWN, _TASKS = 2, 5, 10, 10, 20
_PREVIEW_BYTES = BUDGET_BYTES - 32 * 1024


@dataclass(frozen=True)
class Preparation:
    """How benchmarks below a home are prepared.

    Args:
        precompute: fields of PrecomputeConfig that are set; overrides: those that are other for some benchmarks.
        missing_limit: share of a benchmark's videos that may be missing; failure_limit: that may have no asset.
    """

    home: Path
    options: PrepareOptions
    precompute: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    missing_limit: float
    failure_limit: float

    def places(self, name: str) -> Places:
        """Where a benchmark's files lie."""
        return Places(find_benchmark(name), self.home)

    def precompute_config(self, name: str) -> PrecomputeConfig:
        """What the codec assets of a benchmark are made with.

        Raises:
            UsageError: an option that is none, or a value of another kind.
        """
        places = self.places(name)
        fixed = {"jsonl": places.videos_jsonl, "out_root": places.offline}
        fields = {field.name for field in dataclasses.fields(PrecomputeConfig)} - {*fixed, *_NOT_HERE}
        given = {**self.precompute, **self.overrides.get(name, {})}
        for option in given:
            if option not in fields:
                raise UsageError(f"precompute: {option} is no option here; there are: {', '.join(sorted(fields))}")
        try:
            return TypeAdapter(PrecomputeConfig).validate_python({**given, **fixed})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"precompute: {where} is {first['input']!r}: {first['msg']}") from error

    def assets_hash(self, names: Sequence[str]) -> str:
        """Changes with every option that decides the bytes of an asset of these benchmarks."""
        configs = {name: self.precompute_config(name) for name in names}
        hashes = {
            name: [AssetsStage(config.out_root, config.asset_options()).config_hash, config.only_exists]
            for name, config in configs.items()
        }
        return hash_json(hashes)[:16]

    def run_options(self, names: Sequence[str]) -> RunOptions:
        """The most workers and memory that one of these benchmarks takes."""
        options = [self.precompute_config(name).run_options() for name in names]
        workers, memory = max(o.num_workers for o in options), max(o.memory_gb for o in options)
        return RunOptions(num_workers=workers, memory_gb=memory)

    def geometry(self, name: str) -> Geometry:
        """Of the codec assets."""
        return self.precompute_config(name).asset_options().choose.geometry

    def make_videos(self, name: str) -> Product:
        """Download and extract what is missing, and list the videos."""
        places = self.places(name)
        prepared = prepare(places.benchmark, self.home, self.options)
        return Product(_content(places), _videos_metadata(places, prepared))

    def make_assets(self, name: str) -> Product:
        """Compute the codec assets that are missing or of another configuration.

        Raises:
            UpstreamError: the videos have not been prepared.
        """
        config, places = self.precompute_config(name), self.places(name)
        if not places.videos_jsonl.is_file():
            raise UpstreamError(f"{places.videos_jsonl} is missing; materialize benchmark_videos of {name} first")
        report = run(config)
        ledger = self.ledger(name)
        metadata: dict[str, Any] = {
            "work": work_done(report),
            "preview": dg.MetadataValue.md(self._preview(name, ledger)),
            **_asset_plots(places.offline, ledger, report),
            "videos": report.rows,
            "ok": report.ok,
            "failed": report.failed,
            **({"failed by reason": report.reasons} if report.reasons else {}),
            "signals": report.signals,
            "computed": report.computed,
            "seconds": round(report.seconds, 3),
            "videos per second": round(report.computed / report.seconds, 3) if report.seconds else 0.0,
            "bytes": report.bytes,
            "config hash": report.config_hash,
            "ledger": dg.MetadataValue.path(str(report.ledger)),
            "dagster/partition_row_count": report.rows,
            "dagster/uri": str(places.assets),
            "sample": ledger_table(ledger.head(_SAMPLE_ROWS), ("id", "media", "status", "signal", "bytes")),
        }
        if report.failed:
            failures = ledger.filter(pl.col("status") == FAILED).head(_FAILURE_ROWS)
            metadata["failures"] = ledger_table(failures, ("id", "media", "reason", "detail"))
        return Product(report.data_version, metadata)

    def ledger(self, name: str) -> pl.DataFrame:
        """The rows of a benchmark's codec assets."""
        return read_ledger(ledger_path(self.places(name).offline, ASSETS, Shard(0, 1)))

    def videos_there(self, name: str | None) -> bool:
        """Whether the benchmark was prepared."""
        return name is not None and self.places(name).videos_jsonl.is_file()

    def assets_there(self, name: str | None) -> bool:
        """Whether codec assets were computed."""
        return name is not None and ledger_path(self.places(name).offline, ASSETS, Shard(0, 1)).is_file()

    def check_videos(self, name: str) -> Finding:
        """The videos that the questions are about exist."""
        lines = list(read_videos(self.places(name)))
        missing = [line for line in lines if not Path(line["video"]).exists()]
        share = len(missing) / len(lines) if lines else 0.0
        summary = f"{len(missing)} of {len(lines)} videos are missing ({share:.1%}; limit {self.missing_limit:.1%})"
        numbers = {"videos": len(lines), "missing": len(missing), "share": share, "limit": self.missing_limit}
        offenders = tuple(f"{line['key']}: {line['video']}" for line in missing[:_SHOWN])
        return Finding(bool(lines) and share <= self.missing_limit, summary, numbers, offenders)

    def check_samples(self, name: str) -> Finding:
        """As many questions as the registry knows."""
        wanted = find_benchmark(name).num_samples
        found = sum(line["n"] for line in read_videos(self.places(name)))
        if wanted is None:
            return Finding(
                True, f"{found} questions; how many there should be, the registry does not say", {"questions": found}
            )
        numbers: dict[str, int | float] = {"questions": found, "expected": wanted}
        return Finding(found == wanted, f"{found} questions, the benchmark has {wanted}", numbers)

    def check_failures(self, name: str) -> Finding:
        """The share of videos without an asset is within the limit."""
        rows = self.ledger(name)
        failed = rows.filter(pl.col("status") == FAILED)
        share = failed.height / rows.height if rows.height else 0.0
        summary = f"{failed.height} of {rows.height} videos failed ({share:.1%}; limit {self.failure_limit:.1%})"
        numbers = {"failed": failed.height, "videos": rows.height, "share": share, "limit": self.failure_limit}
        offenders = [f"{row['id']}: {row['reason']}: {row['detail']}" for row in failed.iter_rows(named=True)]
        return Finding(share <= self.failure_limit, summary, numbers, tuple(offenders[:_SHOWN]))

    def check_signal(self, name: str) -> Finding:
        """All videos were scored by one signal."""
        counts = dict(sorted(_done(self.ledger(name))["signal"].value_counts().iter_rows()))
        shown = ", ".join(f"{signal}: {count}" for signal, count in counts.items()) or "no videos"
        summary = f"scored by {shown}" if len(counts) < 2 else f"scored by different signals ({shown})"
        return Finding(len(counts) < 2, summary, counts)

    def check_whole(self, name: str) -> Finding:
        """Every asset has its mosaics, which open, and positions in order."""
        geometry, places = self.geometry(name), self.places(name)
        problems: list[str] = []
        assets = 0
        for row in _done(self.ledger(name)).iter_rows(named=True):
            assets += 1
            problems += _asset_problems(row, places.offline, geometry)
        return finding(problems, f"{assets} assets are whole", {"assets": assets})

    def _preview(self, name: str, ledger: pl.DataFrame) -> str:
        packs = []
        offline = self.places(name).offline
        for row in _done(ledger).head(_PREVIEWED).iter_rows(named=True):
            outputs = [offline / path for path in row["outputs"]]
            mosaics = tuple(sorted(path for path in outputs if path.suffix == ".jpg"))
            packs.append(Pack(row["id"], mosaics, next(path for path in outputs if path.name == POSITIONS)))
        return preview_markdown(packs, self.geometry(name), _PREVIEW_BYTES) if packs else "No assets."


def _asset_plots(offline: Path, ledger: pl.DataFrame, report: Report) -> dict[str, dg.MarkdownMetadataValue]:
    """Where the energy of the first video is, and why others have no asset."""
    found: dict[str, bytes] = {}
    for row in _done(ledger).head(1).iter_rows(named=True):
        folder = (offline / row["outputs"][0]).parent
        meta = json.loads((folder / ASSET_META).read_bytes())
        png = energy_plot(meta, read_array(folder / POSITIONS), read_array(folder / FRAME_IDS), row["id"])
        found |= {} if png is None else {"energy over time": png}
    if report.reasons:
        found["why videos failed"] = draw_counts(report.reasons, "videos without an asset, by reason")
    return {name: plot(png, name) for name, png in found.items()}


def read_videos(places: Places) -> Iterator[dict[str, Any]]:
    """The lines of a benchmark's `<task>_videos.jsonl`."""
    with places.videos_jsonl.open("rb") as file:
        yield from (json.loads(line) for line in file)


def _content(places: Places) -> str:
    """Hash of the questions and of what the videos are, not of where they lie."""
    state = State.read(places.state)
    questions = [state.files, {name: archive["parts"] for name, archive in state.archives.items()}]
    if places.benchmark.builder:
        questions = [[path.name, hash_file(path)] for path in sorted(places.dataset.iterdir())]
    videos = [line | {"video": os.path.relpath(line["video"], places.home)} for line in read_videos(places)]
    return hash_json([state.revision, questions, videos])[:16]


def _videos_metadata(places: Places, prepared: Prepared) -> dict[str, Any]:
    benchmark = places.benchmark
    work = "all was there" if prepared.untouched else f"{prepared.downloaded / 1e6:.1f} MB downloaded"
    return {
        "work": f"{prepared.videos} videos, {len(prepared.missing)} missing; {work}",
        "videos by task": plot(
            draw_counts(_tasks(places), "videos of each task (the largest 20)", LINE), "videos by task"
        ),
        "videos": prepared.videos,
        "missing": len(prepared.missing),
        "keys longer than a stem": prepared.shared,
        "bytes": prepared.size,
        "bytes downloaded now": prepared.downloaded,
        "lmms-eval task": benchmark.task,
        "repository": benchmark.repo or "built here",
        "revision": prepared.revision,
        "license": benchmark.license or "not stated",
        "gated": benchmark.gated,
        "seconds": round(prepared.seconds, 3),
        "videos.jsonl": dg.MetadataValue.path(str(places.videos_jsonl)),
        "dagster/partition_row_count": prepared.videos,
        "dagster/uri": str(places.videos),
        "sample": table(
            [{"key": line["key"], "video": line["video"]} for line in islice(read_videos(places), _SAMPLE_ROWS)]
        ),
    }


def _tasks(places: Places) -> dict[str, int]:
    """How many videos each task asks about first, of the largest tasks."""
    return dict(Counter(line["task"] for line in read_videos(places)).most_common(_TASKS))


def _done(ledger: pl.DataFrame) -> pl.DataFrame:
    return ledger.filter(pl.col("status") == OK)


def _asset_problems(row: dict[str, Any], offline: Path, geometry: Geometry) -> list[str]:
    outputs = [offline / path for path in row["outputs"]]
    mosaics = [path for path in outputs if path.suffix == ".jpg"]
    problems = [f"{path} is missing" for path in outputs if not path.is_file()]
    if len(mosaics) != geometry.num_images:
        problems.append(f"{row['id']}: {len(mosaics)} mosaics, expected {geometry.num_images}")
    if problems:
        return problems
    faults = check_images(mosaics, geometry, quality=None)
    for path in outputs:
        if path.name == POSITIONS:
            pos, unreadable = read_positions(path)
            faults += unreadable
            if pos is not None:
                faults += check_positions(pos, geometry, first_full=True, unique=False, name=str(path))
    return [fault.message for fault in faults]
