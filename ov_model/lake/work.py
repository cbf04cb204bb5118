"""What a worker does to one medium: probe it, choose its patches, pack its mosaics, in one decode.

A Job is plain data, so that it travels to a worker process; its results are what the ledger rows are made of.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.assets import AssetOptions, choose_assets
from ov_model.codec.choose import Choice, ChooseOptions, choose_patches, read_contents
from ov_model.codec.energy import SquareMap
from ov_model.codec.video import VideoInfo, open_video, quiet
from ov_model.errors import MissingFile, MissingVisidx, NotPackable, SampleError
from ov_model.geometry import Geometry
from ov_model.lake.asset_meta import asset_meta, flat_indices
from ov_model.lake.files import array_bytes, hash_arrays, read_array, write_array, write_json
from ov_model.lake.layout import (
    ASSET_META,
    FRAME_IDS,
    FRAME_IDS_SUFFIX,
    META_SUFFIX,
    VISIBLE_INDICES,
    VISIDX_SUFFIX,
    sample_key,
    stage1_prefix,
)
from ov_model.lake.ledger import REFERENCE
from ov_model.lake.scratch import Scratch
from ov_model.lake.store import RemoteStore
from ov_model.lake.urls import ObjectState
from ov_model.lake.workers import BASE_TIMEOUT, set_deadline
from ov_model.mosaic.pack import sort_positions
from ov_model.mosaic.write import PackOptions, write_pack

_SECONDS_PER_PIXEL = 1.2e-8
DECODES_PER_ESTIMATE = 4


@dataclass(frozen=True)
class Sample:
    """The record that names a medium's files."""

    id: str
    media: str
    row: int


@dataclass(frozen=True)
class VisidxTask:
    """Choose patches and write them below `root` under the sample's name."""

    root: Path
    options: ChooseOptions
    identity: dict[str, Any]


@dataclass(frozen=True)
class MosaicsTask:
    """Pack mosaics into `folder`, named after `media`; `prefix` is that of the stage-1 files, None when the same job
    chooses the patches."""

    folder: Path
    media: str
    options: PackOptions
    prefix: Path | None


@dataclass(frozen=True)
class AssetsTask:
    """Make a benchmark video's asset in `folder`; `line` is what names it in the meta file."""

    folder: Path
    options: AssetOptions
    line: dict[str, Any]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One medium and what is wanted of it.

    remote: the medium behind a URL; `path` then only names it. store: the remote root that outputs are sent to.
    """

    path: Path
    sample: Sample
    timeout: float | None
    probe: bool = False
    visidx: VisidxTask | None = None
    mosaics: MosaicsTask | None = None
    assets: AssetsTask | None = None
    remote: ObjectState | None = None
    store: RemoteStore | None = None
    scratch: Scratch = field(default_factory=Scratch)


@dataclass(frozen=True)
class Result:
    """What one stage made of a medium: absolute output paths, or an error."""

    outputs: list[Path]
    output_hash: str
    bytes: int
    signal: str
    facts: dict[str, Any]
    seconds: float
    error: SampleError | None = None


def do_job(job: Job) -> dict[str, Result]:
    """Run a job; the results by stage name (`raw_videos`, `visidx`, ...). A stage's error is in its Result."""
    quiet()
    cv2.setNumThreads(1)
    results: dict[str, Result] = {}
    if job.probe:
        results["raw_videos"] = _timed(job, lambda: _probe(job))
    choice: Choice | None = None
    if (visidx := job.visidx) is not None:
        chosen: list[Choice] = []
        results["visidx"] = _timed(job, lambda: _visidx(job, visidx, chosen))
        choice = chosen[0] if chosen else None
    if (mosaics := job.mosaics) is not None:
        failed = results["visidx"].error if "visidx" in results else None
        results["mosaics"] = failed_result(failed) if failed else _timed(job, lambda: _mosaics(job, mosaics, choice))
    if (assets := job.assets) is not None:
        results["assets"] = _timed(job, lambda: _assets(job, assets))
    return results


def read_meta(prefix: Path) -> dict[str, Any]:
    """The meta file of a stage-1 prefix; MissingVisidx when it is gone or broken."""
    path = Path(f"{prefix}{META_SUFFIX}")
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MissingVisidx(f"{path}: cannot be read ({error}); run stage 1 with --overwrite") from error


def read_stage1(path: Path) -> NDArray[np.int32]:
    """One array of stage 1; MissingVisidx when it is gone or broken."""
    try:
        return read_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise MissingVisidx(f"{path}: cannot be read ({error}); run stage 1 with --overwrite") from error


def stage1_files(prefix: Path | str) -> list[Path]:
    """The three files of a stage-1 prefix."""
    return [Path(f"{prefix}{suffix}") for suffix in (VISIDX_SUFFIX, FRAME_IDS_SUFFIX, META_SUFFIX)]


def _timed(job: Job, stage: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    try:
        result = stage()
    except SampleError as error:
        result = failed_result(error)
    except FileNotFoundError as error:
        if error.filename is None or not Path(os.fsdecode(error.filename)).is_relative_to(job.path):
            raise
        result = failed_result(MissingFile(f"{error.filename}: vanished while it was read; fetch it again"))
    return replace(result, seconds=time.perf_counter() - start)


def failed_result(error: SampleError | None) -> Result:
    """A Result without outputs."""
    return Result([], "", 0, "", {}, 0.0, error)


def _allow_time(job: Job, info: VideoInfo) -> None:
    """A sample may take 60 s + 4 x its estimated decode time, unless told."""
    if job.timeout is None:
        pixels = float(info.width) * info.height * info.n_demuxed
        set_deadline(BASE_TIMEOUT + DECODES_PER_ESTIMATE * pixels * _SECONDS_PER_PIXEL)


def _probe(job: Job) -> Result:
    with open_video(job.path) as video:
        facts = asdict(video.info)
    return Result([], "", 0, "", facts, 0.0)


def _visidx(job: Job, task: VisidxTask, chosen: list[Choice]) -> Result:
    keep_frames = job.mosaics is not None
    choice = choose_patches(
        job.path, task.options, keep_frames=keep_frames, on_open=lambda info: _allow_time(job, info)
    )
    chosen.append(choice)
    sample, geometry = job.sample, task.options.geometry
    prefix = task.root / stage1_prefix(sample.media, sample.id, sample.row, geometry, len(choice.pos_K3))
    meta = stage1_meta(sample, choice, task)
    output_hash = hash_arrays(choice.pos_K3, choice.frame_ids_T)
    visidx, frame_ids, meta_path = stage1_files(prefix)
    write_array(visidx, choice.pos_K3)
    write_array(frame_ids, choice.frame_ids_T)
    write_json(meta_path, {**meta, "visidx_hash": output_hash})
    size = choice.pos_K3.nbytes + choice.frame_ids_T.nbytes
    facts = choice_facts(choice, task.options)
    return Result([visidx, frame_ids, meta_path], output_hash, size, choice.signal, facts, 0.0)


def choice_facts(choice: Choice, options: ChooseOptions) -> dict[str, Any]:
    """What a ledger row keeps of a choice."""
    return {
        "K": len(choice.pos_K3),
        "codec": choice.info.codec,
        "signal_method": choice.signal_method,
        "width": choice.info.width,
        "height": choice.info.height,
        "n_demuxed": choice.info.n_demuxed,
        "n_frames": choice.n_frames,
        "damaged": choice.damaged,
        "pictures": choice.pictures,
        "intra_share": choice.intra_share,
        "repeated": choice.repeated,
        "first_full": options.select.keep_first_full_frame,
    }


def stage1_meta(sample: Sample, choice: Choice, task: VisidxTask) -> dict[str, Any]:
    """The published meta fields in their order, then ours."""
    options, geometry, square = task.options, task.options.geometry, choice.square
    h_start, h_end, w_start, w_end = square.valid_range(geometry.patch_size)
    valid = int(choice.valid_HW.sum())
    info = choice.info
    return {
        "sample_id": sample.id,
        "sample_key": sample_key(sample.media, sample.id, sample.row),
        "video": sample.media,
        "T": geometry.sequence_length,
        "frame_ids": None,
        "preprocess": f"square{geometry.square_size}",
        "square_size": geometry.square_size,
        "patch": geometry.patch_size,
        "keep_frames_equiv": geometry.num_images,
        "padding_policy": options.select.padding_policy,
        "keep_uniform_first": options.select.keep_uniform_first,
        "keep_first_full_frame": options.select.keep_first_full_frame,
        "H0": square.H0,
        "W0": square.W0,
        "pad_info": square.as_dict(),
        "hb": geometry.grid,
        "wb": geometry.grid,
        "S_total": geometry.patches_per_image,
        "S_valid": valid,
        "K": len(choice.pos_K3),
        "padding_patch_filtered": geometry.patches_per_image - valid,
        "valid_ranges": {
            "S_valid": valid,
            "hb_total": geometry.grid,
            "wb_total": geometry.grid,
            "valid_h_start": h_start,
            "valid_h_end": h_end,
            "valid_w_start": w_start,
            "valid_w_end": w_end,
        },
        "signal": choice.signal,
        "signal_method": choice.signal_method,
        "signal_requested": options.signal,
        "geometry": asdict(geometry),
        "energy": asdict(options.energy),
        "signal_options": asdict(options.signals),
        "codec": info.codec,
        "pix_fmt": info.pix_fmt,
        "rotation": info.rotation,
        "sar": list(info.sar),
        "sar_applied": options.apply_sar,
        "n_demuxed": info.n_demuxed,
        "n_decoded": choice.n_frames,
        "damaged": choice.damaged,
        "pictures": choice.pictures,
        "intra_share": choice.intra_share,
        **choice.over_time(),
        "repeated_tail": choice.repeated,
        **task.identity,
    }


def _mosaics(job: Job, task: MosaicsTask, choice: Choice | None) -> Result:
    if choice is None:
        assert task.prefix is not None
        visidx, frame_ids, _ = stage1_files(task.prefix)
        meta = read_meta(task.prefix)
        pos_K3, frame_ids_T = read_stage1(visidx), read_stage1(frame_ids)
        square = SquareMap(**{name: meta["pad_info"][name] for name in SquareMap.__dataclass_fields__})
        check_packable(pos_K3.shape, task.options.geometry, str(visidx))
        damaged = bool(meta.get("damaged"))
        contents = read_contents(job.path, frame_ids_T, square, damaged=damaged)
        signal = meta.get("signal", REFERENCE)
    else:
        pos_K3, frame_ids_T, square, signal = choice.pos_K3, choice.frame_ids_T, choice.square, choice.signal
        check_packable(pos_K3.shape, task.options.geometry, str(job.path))
        contents = iter(choice.contents.items())
    names, output_hash, size = write_pack(task.folder, task.media, contents, frame_ids_T, pos_K3, square, task.options)
    facts = {"N": task.options.geometry.num_images, "K": len(pos_K3)}
    return Result([task.folder / name for name in names], output_hash, size, signal, facts, 0.0)


def _assets(job: Job, task: AssetsTask) -> Result:
    start = time.perf_counter()
    options, geometry = task.options, task.options.choose.geometry
    choice, window = choose_assets(job.path, options, on_open=lambda info: _allow_time(job, info))
    visible_K = flat_indices(sort_positions(choice.pos_K3), geometry)
    beside = {VISIBLE_INDICES: array_bytes(visible_K), FRAME_IDS: array_bytes(choice.frame_ids_T)}
    meta_path = task.folder / ASSET_META
    meta_path.unlink(missing_ok=True)
    names, output_hash, size = write_pack(
        task.folder,
        "mosaic",
        choice.contents.items(),
        choice.frame_ids_T,
        choice.pos_K3,
        choice.square,
        PackOptions(geometry, jpeg_quality=options.jpeg_quality),
        beside,
    )
    identity = {**task.identity, "output_hash": output_hash}
    write_json(meta_path, asset_meta(task.line, choice, window, options, identity, time.perf_counter() - start))
    facts = {**choice_facts(choice, options.choose), "window": [window.start, window.last]}
    outputs = [task.folder / name for name in [*names, ASSET_META]]
    return Result(outputs, output_hash, size, choice.signal, facts, 0.0)


def check_packable(shape: tuple[int, ...], geometry: Geometry, name: str) -> None:
    """Raise NotPackable for positions that do not fill whole mosaics."""
    if shape != (geometry.num_patches, 3):
        raise NotPackable(
            f"{name}: positions have shape {list(shape)}, but {geometry.num_images} mosaics need "
            f"[{geometry.num_patches}, 3]; run stage 1 with padding_policy zero or repeat"
        )
