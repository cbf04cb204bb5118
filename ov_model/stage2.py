"""Stage 2: chosen patches -> mosaics and the training JSONL; or (rewrite) existing mosaics attached to records.

ov stage2 --mode pack --input_dataset raw.json --visidx_root visidx --out_image_root images --out_jsonl train.jsonl
ov stage2 --mode rewrite --input_dataset other.json --out_image_root images --out_jsonl other_train.jsonl
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl

from ov_model.errors import BadRecord, MissingVisidx, SampleError, UsageError
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_json, read_array
from ov_model.lake.jsonl import JsonlSummary, training_row, write_training_jsonl
from ov_model.lake.layout import POSITIONS, media_stem, mosaic_name, safe_name, sharded, short_sha1
from ov_model.lake.ledger import (
    DUPLICATE,
    FAILED,
    OK,
    PASSED,
    SKIPPED,
    Report,
    Row,
    read_ledger,
    summarize,
    to_frame,
)
from ov_model.lake.records import Record
from ov_model.lake.run import run_shard
from ov_model.lake.scratch import local_copy
from ov_model.lake.stages import MOSAICS, MosaicsStage
from ov_model.lake.urls import Location, need_path
from ov_model.lake.visidx import VisidxIndex
from ov_model.mosaic.write import PackOptions
from ov_model.shard_config import Place, ShardConfig
from ov_model.stage1 import shard_records, stage_ledger, write_failures


@dataclass(frozen=True, kw_only=True)
class Stage2Config(ShardConfig):
    """Options of stage 2; names and meanings are the reference's, then ours."""

    input_dataset: Annotated[Location, Place]
    """Raw dataset, a file or URL: JSON array or JSONL."""
    out_jsonl: Path
    """Training JSONL to write."""
    mode: Literal["pack", "rewrite"] = "pack"
    """Make mosaics, or attach existing ones to records by (stem, path hash) without decoding."""
    visidx_root: Path | None = None
    """Folder of the stage-1 files (pack)."""
    out_image_root: Path
    """Folder of the mosaics."""
    num_images: int = 8
    """Mosaics per video, N."""
    square_size: int = 576
    """Side of a mosaic, pixels."""
    T: int = 64
    """Sampled frames."""
    patch: int = 16
    """Side of a patch, pixels."""
    layout: Literal["time_spatial", "spatial"] = "time_spatial"
    """Fill tiles in (t, h, w) order, or paste each patch at its own place."""
    first_full: bool | None = None
    """Mosaic 0 is the whole first frame [default: what stage 1 did; a flag must agree with it]."""
    write_positions: bool = True
    """Write positions_thw.npy beside the mosaics."""
    export_patches: bool = False
    """Write single patches instead of mosaics and leave the conversations alone."""
    include_positions: bool = False
    """Put positions_thw into the rows (rewrite)."""
    skip_missing: bool = False
    """Skip records without stage-1 files (counted) instead of failing them."""
    skip_missing_packs: bool = False
    """Skip records without mosaics (rewrite; counted) instead of failing them."""
    force_shard_out: bool = False
    """Name the output {out_jsonl}.shard00of01.jsonl also when there is one shard."""
    num_workers: int = 1
    """Worker processes."""
    log_every: int = 200
    """Samples between log lines."""
    fail_txt: Path | None = None
    """Failures as tab-separated id, path, reason [default: {out_jsonl}.fail.txt]."""
    absolute_paths: bool = False
    """Write absolute paths into the JSONL."""

    def geometry(self) -> Geometry:
        """The numbers that stage 1 must have used too."""
        return Geometry(self.T, self.num_images, self.square_size, self.patch)

    def pack_options(self) -> PackOptions:
        """The options that decide bytes."""
        return PackOptions(self.geometry(), self.layout, self.first_full, self.write_positions, self.export_patches)

    def jsonl_path(self) -> Path:
        """Where the rows go, with the shard in the name where there are several."""
        return sharded(self.out_jsonl, self.shard) if self.num_shards > 1 or self.force_shard_out else self.out_jsonl

    def render_path(self) -> Callable[[str], str]:
        """How a path is written into the JSONL."""
        return os.path.abspath if self.absolute_paths else str


def run(config: Stage2Config) -> tuple[Report, JsonlSummary]:
    """Make (or find) the mosaics of a shard's records and write its training JSONL.

    Raises:
        UsageError: options that contradict each other or stage 1. LockedError: another process writes this shard.
    """
    for name in ("visidx_root", "out_image_root", "out_jsonl"):
        need_path(getattr(config, name) or Path(), f"--{name}")
    with local_copy(config.input_dataset, config.copies) as dataset:
        return _run(replace(config, input_dataset=dataset))


def _run(config: Stage2Config) -> tuple[Report, JsonlSummary]:
    report, ledger = _pack(config) if config.mode == "pack" else _rewrite(config)
    summary = write_training_jsonl(config.jsonl_path(), stage2_records(config), ledger, row_maker(config))
    failures = config.fail_txt or summary.path.with_name(f"{summary.path.name}.fail.txt")
    write_failures(failures, ledger.filter(pl.col("status") == FAILED))
    return replace(report, outputs=[summary.path, failures]), summary


def row_maker(config: Stage2Config) -> Callable[[Record, list[str]], dict[str, Any]]:
    """What makes a record and its outputs a row of the training JSONL."""
    render = config.render_path()
    positions = config.mode == "pack" or config.include_positions

    def make_row(record: Record, outputs: list[str]) -> dict[str, Any]:
        paths = [str(config.out_image_root / output) for output in outputs]
        if record.kind == "image" and config.media_root is not None:
            media_root = config.media_root
            return training_row(record, paths, config.num_images, lambda image: render(str(media_root / image)))
        return training_row(record, paths, config.num_images, render, positions=positions)

    return make_row


def stage2_records(config: Stage2Config) -> list[Record]:
    """The records of the shard."""
    records = list(shard_records(config.input_dataset, config.shard))
    return records[: config.max_samples] if config.max_samples else records


def mosaics_stage(config: Stage2Config) -> tuple[MosaicsStage, list[Path]]:
    """The stage that mode pack runs, and the ledgers whose content hashes it may trust.

    Raises:
        UsageError: no folder of stage 1.
    """
    if config.visidx_root is None or not config.visidx_root.is_dir():
        raise UsageError(f"--visidx_root is {config.visidx_root}; mode pack needs the folder that stage 1 wrote")
    index = VisidxIndex(config.visidx_root, config.geometry())
    stage = MosaicsStage(
        config.out_image_root,
        config.out_image_root,
        config.pack_options(),
        index.find,
        skip_missing=config.skip_missing,
    )
    return stage, sorted((config.visidx_root / "ledger").glob("visidx.shard*.parquet"))


def _pack(config: Stage2Config) -> tuple[Report, pl.DataFrame]:
    stage, hints = mosaics_stage(config)
    policy = config.media_policy(config.input_dataset)
    report = run_shard(
        stage2_records(config), [stage], config.shard, policy, config.run_options(), hints=hints, title="stage2"
    )[MOSAICS]
    return report, read_ledger(stage_ledger(report))


def _rewrite(config: Stage2Config) -> tuple[Report, pl.DataFrame]:
    if not config.out_image_root.is_dir():
        raise UsageError(
            f"--out_image_root {config.out_image_root} is not a folder; mode rewrite needs existing mosaics"
        )
    folders: dict[str, list[str]] = defaultdict(list)
    with os.scandir(config.out_image_root) as entries:
        for entry in entries:
            folders[entry.name[-8:]].append(entry.name)
    seen: set[str] = set()
    rows = []
    for record in stage2_records(config):
        row = Row(record.row, record.key, record.id, record.media, record.kind, status=PASSED)
        try:
            if record.error is not None:
                raise record.error
            if record.kind == "video":
                row.outputs = _existing_pack(record, folders, config)
                row.status = OK
        except SampleError as error:
            skipped = config.skip_missing_packs and isinstance(error, MissingVisidx)
            row.status, row.reason, row.detail = SKIPPED if skipped else FAILED, error.reason, str(error)
        if record.content_hash in seen:
            row.status, row.reason = DUPLICATE, DUPLICATE
        seen.add(record.content_hash)
        rows.append(row)
    frame = to_frame(rows)
    config_hash = hash_json([config.num_images, config.include_positions])[:16]
    report = summarize(frame, stage="rewrite", computed=0, reused=0, seconds=0.0, config_hash=config_hash, ledger=None)
    return report, frame


def _existing_pack(record: Record, folders: dict[str, list[str]], config: Stage2Config) -> list[str]:
    path_hash = short_sha1(record.media)
    stem = media_stem(record.media)
    ending = f"__{safe_name(stem)}__{path_hash}"
    found = [name for name in folders.get(path_hash, []) if name.endswith((ending, f"__{stem}__{path_hash}"))]
    if not found:
        raise MissingVisidx(
            f"{record.id}: no folder of mosaics for {record.media} (sample_*{ending}) below {config.out_image_root}; "
            "make them with --mode pack"
        )
    own = f"sample_{safe_name(record.id)}{ending}"
    folder = own if own in found else sorted(found)[0]
    names = [mosaic_name(record.media, i) for i in range(config.num_images)]
    missing = [name for name in names if not (config.out_image_root / folder / name).is_file()]
    if missing:
        raise BadRecord(f"{record.id}: {folder} lacks {', '.join(missing)}; make it again with --mode pack")
    positions = [POSITIONS] if (config.out_image_root / folder / POSITIONS).is_file() else []
    if config.include_positions and not positions:
        raise BadRecord(f"{record.id}: {folder} has no {POSITIONS}; make it again, or leave --include_positions out")
    surplus = config.out_image_root / folder / mosaic_name(record.media, config.num_images)
    rows = len(read_array(config.out_image_root / folder / POSITIONS)) if positions else config.geometry().num_patches
    if surplus.exists() or rows != config.geometry().num_patches:
        raise BadRecord(f"{record.id}: {folder} does not hold {config.num_images} mosaics; use the --num_images it has")
    return [f"{folder}/{name}" for name in names + positions]
