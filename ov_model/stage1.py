"""Stage 1: a raw dataset -> the chosen patches of each video (`visidx`).

ov stage1 --dataset_path raw.json --out_root visidx --num_workers 8
ov stage1 --dataset_path raw.json --out_root visidx --sequence_length 16 --keep_frames_equiv 2 --square_size 144
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import polars as pl

from ov_model.codec.choose import ChooseOptions
from ov_model.codec.energy import EnergyOptions
from ov_model.codec.select import SelectOptions
from ov_model.codec.signals import SignalOptions
from ov_model.errors import UnsupportedCodec
from ov_model.geometry import Geometry
from ov_model.lake.files import atomic_write
from ov_model.lake.layout import Shard, shard_of
from ov_model.lake.ledger import FAILED, Report, read_ledger
from ov_model.lake.records import ROW_FIELD, Record, read_records
from ov_model.lake.run import run_shard
from ov_model.lake.scratch import local_copy
from ov_model.lake.stages import VISIDX, VisidxStage
from ov_model.lake.urls import Location, need_path
from ov_model.shard_config import Place, ShardConfig

log = logging.getLogger("ov")


@dataclass(frozen=True, kw_only=True)
class Stage1Config(ShardConfig):
    """Options of stage 1; names and meanings are the reference's, then ours."""

    dataset_path: Annotated[Location, Place]
    """Raw dataset, a file or URL: JSON array or JSONL of {id, conversations, video | image}."""
    out_root: Path
    """Folder for the stage-1 files and their ledger."""
    sequence_length: int = 64
    """Frames sampled per video, T."""
    sample_start_offset: int = 0
    """First frame that may be sampled; an offset past the end counts as 0."""
    keep_frames_equiv: int = 8
    """Patches kept per video, in whole frames (the number of mosaics, N)."""
    square_size: int = 576
    """Side of the square that a frame is fitted into, pixels."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    keep_first_full_frame: bool | None = None
    """Keep every patch of the first sampled frame [default: yes, but not with keep_uniform_first or exclude]."""
    keep_uniform_first: bool | None = None
    """Keep the content patches of the first sampled frame."""
    padding_policy: Literal["exclude", "zero", "repeat"] = "zero"
    """Padding patches: never; only after all content; never, and a shortfall repeats the last row."""
    mv_unit_div: float = 4.0
    """Divisor of motion vectors (cancels in the normalization)."""
    mv_pct: float = 95.0
    """Percentile of motion that counts as 1."""
    res_pct: float = 95.0
    """Percentile of residual that counts as 1."""
    fuse_mode: Literal["weighted", "max", "sum", "geomean"] = "weighted"
    """How motion and residual are joined."""
    w_mv: float = 1.0
    """Weight of motion."""
    w_res: float = 1.0
    """Weight of residual."""
    mv_compensate: Literal["none", "median", "mean"] = "median"
    """Camera motion that is taken off each frame's vectors."""
    res_use_grad: bool = False
    """Score the gradient of the residual instead of its size."""
    num_workers: int = 8
    """Worker processes."""
    shard_dataset_out_dir: Path | None = None
    """Only write the dataset's parts as {stem}.shard00of08.jsonl there, then stop."""
    check_codec: bool = False
    """Refuse videos whose codec is not among allowed_codecs."""
    allowed_codecs: str = "h264,hevc"
    """Comma-separated; only with check_codec."""
    fail_txt: Path | None = None
    """Failures as tab-separated id, path, reason [default: OUT_ROOT/stage1_failed.shard00of01.txt]."""
    unsupported_txt: Path | None = None
    """Unsupported codecs, likewise [default: OUT_ROOT/stage1_unsupported.shard00of01.txt]."""
    log_every: int = 1000
    """Samples between log lines."""
    signal: Literal["auto", "residual", "motion", "reencode"] = "auto"
    """What scores a patch; auto decides per file and says which it took."""
    normalize: Literal["frame", "clip"] = "frame"
    """One scale per frame (the published formula) or one per video."""
    intra: Literal["coded", "contrast", "zero"] = "coded"
    """What blocks without motion vectors count."""
    apply_sar: bool = False
    """Stretch to the display aspect ratio (the reference ignores it)."""
    damaged: Literal["keep", "fail"] = "keep"
    """A damaged video: take the frames that decode, or fail it."""

    def choose_options(self) -> ChooseOptions:
        """The options that decide bytes."""
        return ChooseOptions(
            geometry=Geometry(self.sequence_length, self.keep_frames_equiv, self.square_size, self.patch_size),
            sample_start_offset=self.sample_start_offset,
            signal=self.signal,
            signals=SignalOptions(intra=self.intra),
            energy=EnergyOptions(
                mv_unit_div=self.mv_unit_div,
                mv_pct=self.mv_pct,
                res_pct=self.res_pct,
                fuse_mode=self.fuse_mode,
                w_mv=self.w_mv,
                w_res=self.w_res,
                mv_compensate=self.mv_compensate,
                res_use_grad=self.res_use_grad,
                normalize=self.normalize,
            ),
            select=SelectOptions.resolve(self.padding_policy, self.keep_first_full_frame, self.keep_uniform_first),
            apply_sar=self.apply_sar,
            damaged=self.damaged,
            allowed_codecs=tuple(self.allowed_codecs.split(",")) if self.check_codec else (),
        )


def run(config: Stage1Config) -> Report | list[Path]:
    """Choose the patches of a shard's videos; with `shard_dataset_out_dir`, only split the dataset.

    Returns:
        the shard's Report, or the part files.
    Raises:
        UsageError: options that contradict each other, or an unreadable dataset.
        LockedError: another process is writing this shard.
    """
    with local_copy(config.dataset_path, config.copies) as dataset_path:
        if config.shard_dataset_out_dir is not None:
            stem = config.dataset_path.stem
            return split_dataset(dataset_path, config.shard_dataset_out_dir, config.num_shards, stem)
        return _run(replace(config, dataset_path=dataset_path))


def _run(config: Stage1Config) -> Report:
    out_root = need_path(config.out_root, "--out_root")
    shard = config.shard
    if config.padding_policy == "exclude":
        log.warning("padding_policy exclude does not fill whole mosaics of a padded video: stage 2 will not pack those")
    stage = VisidxStage(out_root, out_root, config.choose_options())
    policy = config.media_policy(config.dataset_path)
    records = shard_records(config.dataset_path, shard)
    report = run_shard(records, [stage], shard, policy, config.run_options(), title="stage1")[VISIDX]
    columns = ("id", "media", "status", "reason", "detail")
    failures = read_ledger(stage_ledger(report), columns).filter(pl.col("status") == FAILED)
    unsupported = pl.col("reason") == UnsupportedCodec.reason
    failed_txt = config.fail_txt or out_root / f"stage1_failed.{shard.key}.txt"
    unsupported_txt = config.unsupported_txt or out_root / f"stage1_unsupported.{shard.key}.txt"
    write_failures(failed_txt, failures.filter(~unsupported))
    write_failures(unsupported_txt, failures.filter(unsupported))
    return replace(report, outputs=[failed_txt, unsupported_txt])


def shard_records(dataset_path: Location, shard: Shard) -> Iterator[Record]:
    """The records of a dataset, a local file by now, that fall into a shard by the published hash."""
    for record in read_records(need_path(dataset_path, "the dataset")):
        if shard.count == 1 or shard_of(record.key, shard.count) == shard.index:
            yield record


def split_dataset(dataset_path: Path, out_dir: Path, num_shards: int, stem: str | None = None) -> list[Path]:
    """Write `{stem}.shard00of08.jsonl` parts, each row with its `_row_idx`; rows that are no objects are logged."""
    paths = [out_dir / f"{stem or dataset_path.stem}.{Shard(i, num_shards).key}.jsonl" for i in range(num_shards)]
    refused = 0
    with ExitStack() as stack:
        streams = [stack.enter_context(atomic_write(path)) for path in paths]
        for record in read_records(dataset_path):
            if not isinstance(record.data, dict):
                refused += 1
                log.warning("%s", record.error)
                continue
            line = json.dumps({**record.data, ROW_FIELD: record.row}, ensure_ascii=False)
            streams[shard_of(record.key, num_shards)].write(line.encode("utf-8", "surrogatepass") + b"\n")
    if refused:
        log.warning("%s: %d rows are not objects and stand in no part", dataset_path, refused)
    return paths


def stage_ledger(report: Report) -> Path:
    """The ledger that a Report counts."""
    if report.ledger is None:
        raise ValueError(f"the report of {report.stage} has no ledger")
    return report.ledger


def write_failures(path: Path, failures: pl.DataFrame) -> None:
    """Tab-separated id, path, reason, one line a failed sample."""
    with atomic_write(path) as stream:
        for sample_id, media, reason, detail in failures.select("id", "media", "reason", "detail").iter_rows():
            fields = (sample_id, media, f"{reason}: {detail}")
            line = "\t".join(field.replace("\t", " ").replace("\n", " ") for field in fields)
            stream.write(line.encode("utf-8", "surrogatepass") + b"\n")
