"""A dataset in the lake: every asset of its lane as one method. Dagster and `ov` both call these.

dataset = Dataset(DatasetSpec("demo", Path("demo.json"), Path("lake/demo"), num_shards=2))
dataset.index_records()
for shard in dataset.shards:
    dataset.raw_videos(shard); dataset.visidx_and_mosaics(shard); dataset.training_jsonl(shard)
dataset.train_jsonl()
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.codec.choose import ChooseOptions
from ov_model.errors import MissingVisidx, SampleError, UpstreamError, UsageError
from ov_model.lake.files import hash_file, hash_json
from ov_model.lake.index import ROWS, build_index, index_path, read_index
from ov_model.lake.jsonl import training_row, write_lines, write_training_jsonl
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import (
    DUPLICATE,
    FAILED,
    OK,
    PASSED,
    Report,
    Row,
    read_ledger,
    row_error,
    summarize,
)
from ov_model.lake.media import MediaPolicy
from ov_model.lake.records import Record
from ov_model.lake.remote_ledger import open_ledger, pull_ledger
from ov_model.lake.run import run_shard
from ov_model.lake.scratch import Scratch, local_copy
from ov_model.lake.stages import (
    MOSAICS,
    RAW,
    VISIDX,
    MosaicsStage,
    RawStage,
    VisidxRef,
    VisidxStage,
    ref_from_row,
)
from ov_model.lake.store import RemoteStore, Store, open_store
from ov_model.lake.tombstones import REMOVED
from ov_model.lake.urls import Location, Url, location, need_path
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions

RECORDS, TRAINING_JSONL, TRAIN_JSONL = "records", "training_jsonl", "train_jsonl"
JSONL_VERSION = 1
STAGES = (RECORDS, RAW, VISIDX, MOSAICS, TRAINING_JSONL, TRAIN_JSONL)


@dataclass(frozen=True)
class DatasetSpec:
    """What makes a dataset: its raw file, its folder in the lake, its shards and the options of its stages.

    Raw file, media and root may lie behind URLs. paths: how train.jsonl names files, `absolute` (the reference's loader
    needs it) or `relative` to the root. scratch: where copies of what is behind URLs go.
    """

    name: str
    dataset_path: Location
    root: Location
    num_shards: int = 4
    media_root: Location | None = None
    allowed_roots: tuple[Location, ...] = ()
    choose: ChooseOptions = field(default_factory=ChooseOptions)
    pack: PackOptions = field(default_factory=PackOptions)
    run: RunOptions = field(default_factory=RunOptions)
    paths: str = "absolute"
    scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        if self.num_shards < 1:
            raise UsageError(f"dataset {self.name}: num_shards is {self.num_shards}; it must be at least 1")
        if self.paths not in ("absolute", "relative"):
            raise UsageError(f"dataset {self.name}: paths is {self.paths!r}; it must be absolute or relative")
        if self.choose.select.padding_policy == "exclude":
            raise UsageError(
                f"dataset {self.name}: padding_policy exclude does not fill whole mosaics; use zero or repeat"
            )
        if self.choose.geometry != self.pack.geometry:
            raise UsageError(f"dataset {self.name}: stage 1 has {self.choose.geometry}, stage 2 {self.pack.geometry}")


class Dataset:
    """The assets of one dataset's lane; each method returns a Report; what is done is not redone."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.shards = [Shard(i, spec.num_shards) for i in range(spec.num_shards)]

    @property
    def root(self) -> Path:
        """The root as a folder.

        Raises:
            UsageError: it is behind a URL.
        """
        return need_path(self.spec.root, f"the root of dataset {self.spec.name}")

    @cached_property
    def store(self) -> Store:
        """The root, wherever it is."""
        return open_store(self.spec.root, self.spec.scratch)

    # -- assets -------------------------------------------------------------------------------------------------

    def index_records(self) -> Report:
        """records: stream the raw dataset into one index file per shard."""
        start = time.perf_counter()
        keys = [f"{RECORDS}/{shard.key}.jsonl" for shard in self.shards] + [f"{RECORDS}/{ROWS}"]
        before = [self.store.pull(key).stat().st_mtime_ns if self.store.pull(key).exists() else 0 for key in keys]
        self.store.pull(f"{RECORDS}/{REMOVED}")
        with local_copy(self.spec.dataset_path, self.spec.scratch) as raw:
            rows = build_index(raw, self._records, self.spec.num_shards)
        outputs = [index_path(self._records, shard) for shard in self.shards]
        for key, was in zip(keys, before, strict=True):
            if (self.store.local / key).stat().st_mtime_ns != was:
                self.store.push(key)
        bad = rows.filter(pl.col("kind") == "bad").height
        return Report(
            stage=RECORDS,
            rows=rows.height,
            ok=rows.height - bad,
            passed=0,
            failed=bad,
            duplicates=rows.filter(pl.col("occurrence") > 0).height,
            skipped=0,
            reasons={"bad_record": bad} if bad else {},
            signals={},
            computed=0,
            reused=0,
            seconds=time.perf_counter() - start,
            bytes=sum(path.stat().st_size for path in outputs),
            config_hash=self.code_version(RECORDS),
            ledger=None,
            data_version=hash_json([hash_file(path) for path in outputs])[:16],
            outputs=outputs,
        )

    def raw_videos(self, shard: Shard) -> Report:
        """raw_videos: find, hash and probe each medium of a shard."""
        return self._run(shard, [RawStage(self.store)])[RAW]

    def visidx(self, shard: Shard) -> Report:
        """visidx: choose the patches of a shard's videos."""
        self._require(RAW, shard)
        return self._run(shard, [self._visidx_stage()])[VISIDX]

    def mosaics(self, shard: Shard) -> Report:
        """mosaics: pack the chosen patches of a shard's videos."""
        self._require(VISIDX, shard)
        return self._run(shard, [self._mosaics_stage(shard)])[MOSAICS]

    def visidx_and_mosaics(self, shard: Shard) -> tuple[Report, Report]:
        """Both on one decode of each video."""
        self._require(RAW, shard)
        reports = self._run(shard, [self._visidx_stage(), self._mosaics_stage(shard)])
        return reports[VISIDX], reports[MOSAICS]

    def training_jsonl(self, shard: Shard) -> Report:
        """training_jsonl: a shard's rows, paths relative to the dataset's root; images of image records must exist."""
        start = time.perf_counter()
        if self._has_videos(shard):
            self._require(MOSAICS, shard)
        key = f"jsonl/{shard.key}.jsonl"
        path = self.store.local / key
        mosaics = {row["key"]: Row(**row) for row in self.ledger(MOSAICS, shard).iter_rows(named=True)}
        config_hash = self.code_version(TRAINING_JSONL)
        with open_ledger(self.store, TRAINING_JSONL, shard) as ledger:
            reused = 0
            seen: set[str] = set()
            for record in self.records(shard):
                row = self._training_row(record, mosaics.get(record.key), config_hash)
                if record.content_hash in seen:
                    row.status = row.reason = DUPLICATE
                seen.add(record.content_hash)
                prior = ledger.find(record.key)
                if prior is not None and _same(prior, row):
                    reused += 1
                    ledger.keep(record.key)
                else:
                    ledger.append(row)
            frame = ledger.compact(keep_unseen=False)
            summary = write_training_jsonl(path, self.records(shard), frame, self._jsonl_row)
            self.store.push(key)
        report = summarize(
            frame,
            stage=TRAINING_JSONL,
            computed=0,
            reused=reused,
            seconds=time.perf_counter() - start,
            config_hash=config_hash,
            ledger=ledger.path,
            outputs=[path],
        )
        return replace(report, bytes=summary.bytes, data_version=summary.content_hash[:16])

    def train_jsonl(self, *, allow_missing: bool = False) -> Report:
        """train_jsonl: all shards' rows merged by row number.

        Raises:
            UpstreamError: a shard's JSONL is missing (unless allowed).
        """
        start = time.perf_counter()
        parts = [self.store.pull(f"jsonl/{shard.key}.jsonl") for shard in self.shards]
        missing = [part.name for part in parts if not part.exists()]
        if missing and not allow_missing:
            raise UpstreamError(
                f"dataset {self.spec.name}: {', '.join(missing)} missing; materialize their training_jsonl first"
            )
        out = self.store.local / "train.jsonl"
        frames = [self.ledger(TRAINING_JSONL, shard) for shard in self.shards]
        write_lines(out, self._merged_lines(parts, frames))
        self.store.push(out.name)
        frame = pl.concat(frames)
        report = summarize(
            frame,
            stage=TRAIN_JSONL,
            computed=0,
            reused=0,
            seconds=time.perf_counter() - start,
            config_hash=self.code_version(TRAIN_JSONL),
            ledger=None,
            outputs=[out],
        )
        return replace(report, bytes=out.stat().st_size, data_version=hash_file(out)[:16])

    # -- what is there ------------------------------------------------------------------------------------------

    def records(self, shard: Shard) -> Iterator[Record]:
        """A shard's records, with the row numbers of the index.

        Raises:
            UpstreamError: the index has not been made.
        """
        if not self.store.pull(f"{RECORDS}/{shard.key}.jsonl").exists():
            raise UpstreamError(
                f"dataset {self.spec.name}: no index of {shard.key} below {self.spec.root / RECORDS}; "
                "materialize records first"
            )
        return read_index(self._records, shard)

    def ledger(self, stage: str, shard: Shard) -> pl.DataFrame:
        """A stage's ledger of a shard; empty when it never ran."""
        return read_ledger(pull_ledger(self.store, stage, shard))

    def code_version(self, stage: str) -> str:
        """Changes with every option, of this stage or upstream of it, that changes bytes."""
        options: list[Any] = [self.spec.num_shards]
        if stage in (VISIDX, MOSAICS, TRAINING_JSONL, TRAIN_JSONL):
            options.append(self._visidx_stage().config_hash)
        if stage in (MOSAICS, TRAINING_JSONL, TRAIN_JSONL):
            options.append(self._mosaics_stage(None).config_hash)
        if stage in (TRAINING_JSONL, TRAIN_JSONL):
            options.append(JSONL_VERSION)
        if stage == TRAIN_JSONL:
            options.append(self.spec.paths)
        return hash_json([stage, options])[:16]

    @contextmanager
    def on_disk(self, stages: Sequence[str], shard: Shard | None) -> Iterator[Dataset]:
        """This dataset, to be looked at: where its root is behind a URL, one whose root is a copy on a local disk.

        The copy has the index, the ledgers and the JSONL of a shard (None: of all), and what `stages` made of it; that
        goes when the context ends.
        """
        store = self.store
        if not isinstance(store, RemoteStore):
            yield self
            return
        shards = self.shards if shard is None else [shard]
        keys = [f"{RECORDS}/{ROWS}", "train.jsonl"]
        outputs: list[str] = []
        for part in shards:
            keys += [f"{RECORDS}/{part.key}.jsonl", f"jsonl/{part.key}.jsonl"]
            for stage in (RAW, VISIDX, MOSAICS, TRAINING_JSONL):
                rows = self.ledger(stage, part)
                if stage in stages and stage != TRAINING_JSONL:
                    outputs += rows.filter(pl.col("status") == OK)["outputs"].explode().drop_nulls().to_list()
        try:
            store.pull_all([*keys, *outputs])
            yield Dataset(replace(self.spec, root=store.local))
        finally:
            for key in outputs:
                (store.local / key).unlink(missing_ok=True)

    # -- how ----------------------------------------------------------------------------------------------------

    @property
    def _records(self) -> Path:
        return self.store.local / RECORDS

    @property
    def _policy(self) -> MediaPolicy:
        spec = self.spec
        return MediaPolicy(spec.dataset_path, spec.media_root, spec.allowed_roots, spec.scratch)

    def _run(self, shard: Shard, stages: Sequence[RawStage | VisidxStage | MosaicsStage]) -> dict[str, Report]:
        spec = self.spec
        hints = [pull_ledger(self.store, stage, shard) for stage in (RAW, VISIDX)]
        title = f"{spec.name}/{'+'.join(stage.name for stage in stages)} {shard.key}"
        return run_shard(self.records(shard), stages, shard, self._policy, spec.run, hints=hints, title=title)

    def _visidx_stage(self) -> VisidxStage:
        return VisidxStage(self.store, self.store.local / VISIDX, self.spec.choose)

    def _mosaics_stage(self, shard: Shard | None) -> MosaicsStage:
        rows: dict[str, Row] = {}
        folder = self.store.local / "images"
        if shard is not None:
            folder = folder / f"shard{shard.index:02d}"
            rows = {row["key"]: Row(**row) for row in self.ledger(VISIDX, shard).iter_rows(named=True)}

        def find(record: Record) -> VisidxRef:
            row = rows.get(record.key)
            if row is None:
                raise MissingVisidx(f"{record.id}: stage 1 has no row for it; materialize visidx of its shard first")
            return ref_from_row(row, self.store.local)

        return MosaicsStage(self.store, folder, self.spec.pack, find)

    def _require(self, stage: str, shard: Shard) -> None:
        """Refuse to build on a stage that has not seen all of a shard's records."""
        seen = set(self.ledger(stage, shard)["key"])
        unseen = [record.id for record in self.records(shard) if record.key not in seen]
        if unseen:
            raise UpstreamError(
                f"dataset {self.spec.name}, {shard.key}: {stage} has no row for {len(unseen)} records "
                f"({', '.join(unseen[:3])}{', …' if len(unseen) > 3 else ''}); materialize {stage} of this shard first"
            )

    def _has_videos(self, shard: Shard) -> bool:
        return any(record.kind == "video" for record in self.records(shard))

    def _training_row(self, record: Record, mosaics: Row | None, config_hash: str) -> Row:
        row = Row(record.row, record.key, record.id, record.media, record.kind, config_hash=config_hash)
        row.input_hash = hash_json([record.content_hash, mosaics.output_hash if mosaics else ""])[:32]
        try:
            if record.error is not None:
                raise record.error
            if record.kind == "image":
                row.outputs = [self._relative(self._policy.find(image)) for image in record.images]
                row.status = PASSED
            elif record.kind == "text":
                row.status = PASSED
            else:
                if mosaics is None or mosaics.status != OK:
                    raise (
                        row_error(mosaics) if mosaics else MissingVisidx(f"{record.id}: no mosaics; make them first")
                    )
                row.outputs, row.signal = mosaics.outputs, mosaics.signal
                row.output_hash = mosaics.output_hash
        except SampleError as error:
            row.status, row.reason, row.detail = FAILED, error.reason, str(error)
        return row

    def _jsonl_row(self, record: Record, outputs: list[str]) -> dict[str, Any]:
        if record.kind == "image":
            images = iter(outputs)
            return training_row(record, [], self.spec.pack.geometry.num_images, lambda _: next(images))
        return training_row(record, outputs, self.spec.pack.geometry.num_images, str)

    def _relative(self, place: Location) -> str:
        """How a shard's JSONL names an image; what is not on the root's side of the network, in full."""
        if isinstance(place, Url) or isinstance(self.spec.root, Url):
            return str(place)
        return Path(os.path.relpath(place, self.root)).as_posix()

    def _merged_lines(self, parts: list[Path], frames: list[pl.DataFrame]) -> Iterator[bytes]:
        """Rows of all parts in row order; a part's lines are in its ledger's order."""

        def rows(part: Path, frame: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
            numbers = frame.filter(pl.col("status").is_in([OK, PASSED]))["row"]
            with open(part, "rb") as stream:
                yield from zip(numbers, stream, strict=True)

        streams = [rows(part, frame) for part, frame in zip(parts, frames, strict=True) if part.exists()]
        for _, line in heapq.merge(*streams):
            yield self._with_paths(line)

    def _with_paths(self, line: bytes) -> bytes:
        if self.spec.paths == "relative":
            return line
        row = json.loads(line)
        for name in ("image", "positions_thw"):
            value = row.get(name)
            if isinstance(value, str):
                row[name] = self._absolute(value)
            elif value is not None:
                row[name] = [self._absolute(item) for item in value]
        return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"

    def _absolute(self, name: str) -> str:
        place = location(name)
        if isinstance(place, Url) or place.is_absolute():
            return name
        root = self.spec.root
        return os.path.abspath(root / name) if isinstance(root, Path) else str(root / name)


def _same(prior: Row, row: Row) -> bool:
    names = (
        "row",
        "status",
        "reason",
        "detail",
        "input_hash",
        "config_hash",
        "outputs",
        "output_hash",
        "signal",
    )
    return all(getattr(prior, name) == getattr(row, name) for name in names)
