"""Offline codec assets: the videos of a benchmark -> a folder of mosaics and positions each.

ov precompute --jsonl videomme_videos.jsonl --out_root videomme_offline --num_workers 8
ov precompute --jsonl videos.jsonl --out_root out --seq_len_frames 16 --num_images 2 --square_size 144
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ov_model.codec.assets import AssetOptions
from ov_model.codec.choose import ChooseOptions
from ov_model.codec.energy import EnergyOptions
from ov_model.codec.select import SelectOptions
from ov_model.codec.signals import SignalOptions
from ov_model.errors import BadRecord, DuplicateRecord, KnownMissing, UsageError
from ov_model.geometry import Geometry
from ov_model.lake.files import folds_case
from ov_model.lake.layout import file_identity, key_folder, key_problem
from ov_model.lake.ledger import Report
from ov_model.lake.records import BrokenLine, Record, read_values
from ov_model.lake.run import run_shard
from ov_model.lake.stages import ASSETS, AssetsStage
from ov_model.shard_config import ShardConfig

if TYPE_CHECKING:
    from ov_model.eval.benchmarks import Places

log = logging.getLogger("ov")


@dataclass(frozen=True, kw_only=True)
class PrecomputeConfig(ShardConfig):
    """Options of the offline assets; names and meanings are the reference's, then ours."""

    jsonl: Path
    """Videos, one object a line: {video, key[, task, split, doc_id, n, exists]}."""
    out_root: Path
    """Folder for assets/{key} and their ledger."""
    num_workers: int = 8
    """Worker processes."""
    chunksize: int | None = None
    """Accepted, without effect: videos are handed to workers one by one."""
    opencv_threads: int | None = None
    """Accepted, without effect: a worker computes on one thread."""
    overwrite: bool = False
    """Make every asset again."""
    only_exists: bool = True
    """Skip (and count) the lines that say exists: false; otherwise look for their videos too."""
    max_samples: int = 0
    """Only the first so many lines (0: all)."""
    num_shards: int = 1
    """Number of parts the lines are split into, by their number modulo this."""
    shard_id: int = 0
    """Which part to do."""
    log_every: int = 20
    """Videos between log lines."""
    seq_len_frames: int = 64
    """Frames sampled per video, T."""
    num_images: int = 8
    """Mosaics per video, N."""
    square_size: int = 576
    """Side of a mosaic, pixels."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    keep_mid_full_frame: bool = False
    """Keep a second frame whole, the middle one."""
    mid_full_frame_index: int = -1
    """Which sampled frame that is (-1: seq_len_frames // 2; 0: none)."""
    topk_mode: Literal["global", "time_bucket"] = "global"
    """Rank all other patches together, or share the mosaics over stretches of time."""
    time_bucket_count: int = -1
    """Stretches of time (-1: one for each mosaic that whole frames leave)."""
    mv_unit_div: float = 4.0
    """Divisor of motion vectors (cancels in the normalization)."""
    mv_pct: float = 95.0
    """Percentile of motion that counts as 1."""
    res_pct: float = 95.0
    """Percentile of residual that counts as 1."""
    w_mv: float = 1.0
    """Weight of motion."""
    w_res: float = 1.0
    """Weight of residual."""
    mv_compensate: Literal["median", "mean", "none"] = "median"
    """Camera motion that is taken off each frame's vectors."""
    res_use_grad: bool = False
    """Score the gradient of the residual instead of its size."""
    window_len: int = 0
    """Sample from so many frames only (0: the whole video)."""
    window_pick: Literal["none", "begin", "mid", "end", "energy3"] = "none"
    """Where they lie: none means begin; energy3 takes the one of the three with the most packet bytes."""
    jpg_quality: int = 95
    """JPEG quality of the mosaics."""
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

    def asset_options(self) -> AssetOptions:
        """The options that decide bytes."""
        return AssetOptions(
            choose=ChooseOptions(
                geometry=Geometry(self.seq_len_frames, self.num_images, self.square_size, self.patch_size),
                signal=self.signal,
                signals=SignalOptions(intra=self.intra),
                energy=EnergyOptions(
                    mv_unit_div=self.mv_unit_div,
                    mv_pct=self.mv_pct,
                    res_pct=self.res_pct,
                    w_mv=self.w_mv,
                    w_res=self.w_res,
                    mv_compensate=self.mv_compensate,
                    res_use_grad=self.res_use_grad,
                    normalize=self.normalize,
                ),
                select=SelectOptions("repeat"),
                apply_sar=self.apply_sar,
                damaged=self.damaged,
            ),
            keep_mid_full_frame=self.keep_mid_full_frame,
            mid_full_frame_index=self.mid_full_frame_index,
            topk_mode=self.topk_mode,
            time_bucket_count=self.time_bucket_count,
            window_len=self.window_len,
            window_pick=self.window_pick,
            jpeg_quality=self.jpg_quality,
        )


def run(config: PrecomputeConfig) -> Report:
    """Make the assets of a shard's videos that are missing, changed or made with other options.

    Raises:
        UsageError: options that contradict each other, an unreadable list, or one key for two videos.
        LockedError: another process is writing this shard.
    """
    for name in ("chunksize", "opencv_threads"):
        if getattr(config, name) is not None:
            log.warning("%s has no effect here: see --num_workers", name)
    stage = AssetsStage(config.out_root, config.asset_options())
    shard = config.shard
    lines = list(read_lines(config.jsonl, only_exists=config.only_exists, media_root=config.local_media_root))
    refuse_one_folder(lines, config.jsonl, config.out_root)
    records = [record for record in lines if record.row % shard.count == shard.index]
    policy = config.media_policy(config.jsonl)
    return run_shard(records, [stage], shard, policy, config.run_options(), title="precompute")[ASSETS]


def read_lines(jsonl: Path, *, only_exists: bool = True, media_root: Path | None = None) -> Iterator[Record]:
    """The lines of a list of videos as records whose id is the key; one that cannot be used carries its error.

    A key that comes again with the same video is a duplicate.

    Raises:
        UsageError: a key that comes again with another video.
    """
    taken: dict[str, tuple[int, str]] = {}
    for row, value in enumerate(read_values(jsonl)):
        record = _parse_line(value, row, only_exists)
        if record.kind == "video":
            video = os.path.normpath(os.path.join(media_root or "", record.media))
            first, other = taken.setdefault(record.id, (row, video))
            if other != video:
                raise UsageError(
                    f"{jsonl}: key {record.id!r} names two videos, {other} (line {first + 1}) and {video} "
                    f"(line {row + 1}); give each video a key of its own"
                )
            if first != row:
                record = replace(record, error=DuplicateRecord(f"line {row + 1} repeats key {record.id!r}"))
        yield record


def refuse_one_folder(lines: Iterable[Record], jsonl: Path, out_root: Path) -> None:
    """Raise UsageError where two keys would share a folder on the file system of `out_root`."""
    keys = {line.id for line in lines if line.kind == "video"}
    folders: dict[str, str] = {}
    for key in sorted(keys):
        other = folders.setdefault(file_identity(key_folder(key)), key)
        if other != key and folds_case(out_root):
            raise UsageError(
                f"{jsonl}: keys {other!r} and {key!r} differ in case only, which the file system of {out_root} does "
                "not tell apart; write to another one"
            )


def _parse_line(value: Any, row: int, only_exists: bool) -> Record:
    if isinstance(value, BrokenLine):
        return Record(row, "bad", "", "", value.text, BadRecord(value.message))
    if not isinstance(value, dict):
        found = type(value).__name__
        return Record(row, "bad", "", "", value, BadRecord(f"line {row + 1} is {found}, expected {{video, key}}"))
    key, video = value.get("key"), value.get("video")
    key = str(key) if isinstance(key, (str, int)) and not isinstance(key, bool) else ""
    media = video if isinstance(video, str) else ""
    problem = key_problem(key) if media else f"video is {str(video)[:80]!r}, expected a path"
    if problem:
        error = BadRecord(f"line {row + 1}: {problem}; expected {{video: a path, key: a folder's name}}")
        return Record(row, "bad", key, media, value, error)
    data = {**value, "key": key}
    if only_exists and not value.get("exists", True):
        error = KnownMissing(f"line {row + 1} says exists: false; fetch {media}, or use --no-only_exists")
        return Record(row, "skipped", key, media, data, error)
    return Record(row, "video", key, media, data)


def precompute_command(places: Places) -> str:
    """The command line that makes a benchmark's assets."""
    return shlex.join(["ov", "precompute", "--jsonl", str(places.videos_jsonl), "--out_root", str(places.offline)])
