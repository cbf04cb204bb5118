"""Are these files what the stage would call its own? One check a stage, run in worker processes.

A check looks at one sample's files and returns what the ledger is to say of them, or every Problem by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ov_model.checks import (
    Problem,
    check_against_visidx,
    check_images,
    check_padding_black,
    check_positions,
    read_positions,
)
from ov_model.codec.assets import AssetOptions, pick_window
from ov_model.codec.choose import ChooseOptions, display_size
from ov_model.codec.energy import SquareMap
from ov_model.codec.select import budget, sample_frames
from ov_model.codec.video import Video, open_video
from ov_model.errors import SampleError
from ov_model.eval.asset import AssetFault, check_asset, mosaic_files, read_meta
from ov_model.geometry import Geometry
from ov_model.lake.asset_meta import options_cfg
from ov_model.lake.files import hash_arrays, hash_file
from ov_model.lake.layout import ASSET_META, FRAME_IDS, POSITIONS, VISIBLE_INDICES, mosaic_name
from ov_model.lake.ledger import REFERENCE
from ov_model.lake.work import Result, stage1_files
from ov_model.lake.work import read_meta as read_stage1_meta
from ov_model.mosaic.write import PackOptions
from ov_model.ops.verify import hash_files

_META_OPTIONS = {
    "T": lambda o: o.geometry.sequence_length,
    "square_size": lambda o: o.geometry.square_size,
    "patch": lambda o: o.geometry.patch_size,
    "keep_frames_equiv": lambda o: o.geometry.num_images,
    "padding_policy": lambda o: o.select.padding_policy,
    "keep_uniform_first": lambda o: o.select.keep_uniform_first,
    "keep_first_full_frame": lambda o: o.select.keep_first_full_frame,
}


@dataclass(frozen=True)
class Candidate:
    """A sample's files. video: the medium. content_hash, config_hash: of the medium and of the stage as it is now."""

    key: str
    video: Path
    content_hash: str
    config_hash: str


@dataclass(frozen=True)
class VisidxCandidate(Candidate):
    """Stage-1 files, by their prefix."""

    prefix: Path
    options: ChooseOptions


@dataclass(frozen=True)
class PackCandidate(Candidate):
    """A folder of mosaics, its files named after `media`, and the stage-1 files that it was made from."""

    folder: Path
    media: str
    prefix: Path
    first_full: bool
    options: PackOptions


@dataclass(frozen=True)
class AssetCandidate(Candidate):
    """An asset's folder."""

    folder: Path
    name: str
    options: AssetOptions


def check(candidate: Candidate) -> Result | list[Problem]:
    """What the ledger is to say of a candidate, or what is wrong with it."""
    try:
        if isinstance(candidate, VisidxCandidate):
            return _visidx(candidate)
        if isinstance(candidate, PackCandidate):
            return _pack(candidate)
        assert isinstance(candidate, AssetCandidate)
        return _asset(candidate)
    except SampleError as error:
        return [Problem(0, "", error.reason, str(error))]
    except AssetFault as fault:
        return [Problem(0, "", f"asset_{fault.status}", str(fault))]


def _visidx(candidate: VisidxCandidate) -> Result | list[Problem]:
    options, geometry = candidate.options, candidate.options.geometry
    paths = stage1_files(candidate.prefix)
    meta = read_stage1_meta(candidate.prefix)
    problems = list(_options_differ(paths[2], meta, options)) + list(_other_make(paths[2], meta, candidate))
    pos, faults = read_positions(paths[0])
    frame_ids, more = read_positions(paths[1])
    problems += faults + more
    if pos is None or frame_ids is None or problems:
        return problems
    repeated = int(meta.get("repeated_tail", 0))
    first_full = options.select.keep_first_full_frame
    name = str(paths[0])
    with open_video(candidate.video) as video:
        height, width = display_size(video.info, options.apply_sar)
        square = SquareMap.fit(height, width, geometry.square_size)
        if (meta.get("H0"), meta.get("W0")) != (height, width):
            found = f"{meta.get('H0')} x {meta.get('W0')}, {candidate.video} has {height} x {width}"
            problems.append(Problem(0, "", "other_video", f"{paths[2]}: made from a video of {found}"))
        valid = square.valid_range(geometry.patch_size)
        cells = geometry.patches_per_image
        wanted = budget(
            geometry.sequence_length, cells, (valid[1] - valid[0]) * (valid[3] - valid[2]), geometry.num_images,
            options.select.padding_policy,
        )  # fmt: skip
        if wanted == geometry.num_patches:
            problems += check_positions(
                pos, geometry, first_full=first_full, ordered=False, repeated=repeated, name=name
            )
        elif pos.shape != (wanted, 3) or pos.dtype != np.int32:
            found = f"{pos.dtype} {list(pos.shape)}, expected int32 [{wanted}, 3]"
            problems.append(Problem(0, "", "positions_shape", f"{name}: {found}"))
        damaged = bool(meta.get("damaged"))
        problems += _frame_ids(paths[1], frame_ids, None if damaged else _sampled(video, options), geometry)
        facts = _video_facts(video)
    if problems:
        return problems
    facts |= {"K": len(pos), "damaged": damaged, "repeated": repeated, "first_full": first_full}
    size = pos.nbytes + frame_ids.nbytes
    return Result(paths, hash_arrays(pos, frame_ids), size, meta.get("signal", REFERENCE), facts, 0.0)


def _sampled(video: Video, options: ChooseOptions) -> NDArray[np.int32]:
    return sample_frames(len(video.index), options.geometry.sequence_length, options.sample_start_offset)


def _frame_ids(
    path: Path, found: NDArray[Any], expected: NDArray[np.int32] | None, geometry: Geometry
) -> Iterator[Problem]:
    """expected: None where the video is damaged, so that only decoding it whole would tell."""
    if found.shape != (geometry.sequence_length,) or found.dtype != np.int32:
        shown = f"{found.dtype} {list(found.shape)}, expected int32 [{geometry.sequence_length}]"
        yield Problem(0, "", "frame_ids_shape", f"{path}: {shown}")
    elif expected is not None and not np.array_equal(found, expected):
        at = int(np.flatnonzero(found != expected)[0])
        shown = f"frame {at} is {found[at]}, this video and these options give {expected[at]}"
        yield Problem(0, "", "frame_ids", f"{path}: {shown}; made from another video, or from what decodes of it")


def _options_differ(path: Path, meta: dict[str, Any], options: ChooseOptions) -> Iterator[Problem]:
    for name, of in _META_OPTIONS.items():
        if name in meta and meta[name] != of(options):
            message = f"{path}: made with {name} {meta[name]!r}, asked for is {of(options)!r}"
            yield Problem(0, "", "other_options", message)


def _other_make(path: Path, meta: dict[str, Any], candidate: Candidate) -> Iterator[Problem]:
    """Files of ours say from what, and how, they were made."""
    if meta.get("config_hash", candidate.config_hash) != candidate.config_hash:
        found = f"configuration {meta['config_hash']}, asked for is {candidate.config_hash}"
        yield Problem(0, "", "other_options", f"{path}: made with {found}")
    if meta.get("content_hash", candidate.content_hash) != candidate.content_hash:
        found = f"SHA-256 {meta['content_hash'][:12]}, {candidate.video} has {candidate.content_hash[:12]}"
        yield Problem(0, "", "other_video", f"{path}: made from a video of {found}")


def _video_facts(video: Video) -> dict[str, Any]:
    info = video.info
    return {
        "codec": info.codec,
        "signal_method": REFERENCE,
        "width": info.width,
        "height": info.height,
        "n_demuxed": info.n_demuxed,
        "n_frames": len(video.index),
    }


def _pack(candidate: PackCandidate) -> Result | list[Problem]:
    options, geometry = candidate.options, candidate.options.geometry
    if options.export_patches:
        message = f"{candidate.folder}: single patches cannot be adopted; run stage 2 with --export_patches"
        return [Problem(0, "", "patches", message)]
    paths = [candidate.folder / mosaic_name(candidate.media, i) for i in range(geometry.num_images)]
    problems = check_images(paths, geometry, quality=options.jpeg_quality)
    surplus = candidate.folder / mosaic_name(candidate.media, geometry.num_images)
    if surplus.exists():
        message = f"{surplus}: more than {geometry.num_images} mosaics; made with other options"
        problems.append(Problem(0, "", "surplus_image", message))
    visidx, _, meta_path = stage1_files(candidate.prefix)
    meta = read_stage1_meta(candidate.prefix)
    if options.write_positions:
        pos, faults = read_positions(candidate.folder / POSITIONS)
        chosen, more = read_positions(visidx)
        problems += faults + more
        if pos is not None and chosen is not None and not problems:
            name, repeated = str(candidate.folder / POSITIONS), int(meta.get("repeated_tail", 0))
            problems += check_positions(
                pos, geometry, first_full=candidate.first_full, repeated=repeated, name=name
            ) or check_against_visidx(pos, chosen, name)
            if not problems and options.layout == "time_spatial":
                square = SquareMap(**{field: meta["pad_info"][field] for field in SquareMap.__dataclass_fields__})
                box = (square.pad_top, square.pad_top + square.Hn, square.pad_left, square.pad_left + square.Wn)
                problems += check_padding_black(paths, pos, box, geometry)
        paths.append(candidate.folder / POSITIONS)
    problems += _other_video(meta_path, meta, candidate)
    if problems:
        return problems
    facts = {"N": geometry.num_images, "K": geometry.num_patches}
    size = sum(path.stat().st_size for path in paths)
    return Result(paths, hash_files(paths), size, meta.get("signal", REFERENCE), facts, 0.0)


def _other_video(path: Path, meta: dict[str, Any], candidate: Candidate) -> list[Problem]:
    return [problem for problem in _other_make(path, meta, candidate) if problem.code == "other_video"]


def _asset(candidate: AssetCandidate) -> Result | list[Problem]:
    options, geometry = candidate.options, candidate.options.choose.geometry
    folder = candidate.folder
    meta = read_meta(folder)
    cfg = meta.get("cfg") or {}
    problems = list(_other_make(folder / ASSET_META, meta, candidate))
    if meta.get("key") != candidate.name:
        message = f"{folder / ASSET_META}: is of key {meta.get('key')!r}, expected {candidate.name!r}"
        problems.append(Problem(0, "", "other_key", message))
    for name, value in options_cfg(options).items():
        if name in cfg and cfg[name] != value:
            message = f"{folder / ASSET_META}: made with {name} {cfg[name]!r}, asked for is {value!r}"
            problems.append(Problem(0, "", "other_options", message))
    absent = [folder / name for name in (VISIBLE_INDICES, FRAME_IDS) if not (folder / name).is_file()]
    problems += [Problem(0, "", "missing_output", f"{path}: no such file") for path in absent]
    if problems:
        return problems
    check_asset(folder, geometry, cfg)
    paths = [folder / name for name in mosaic_files(geometry)]
    problems += check_images(paths, geometry, quality=options.jpeg_quality)
    frame_ids, faults = read_positions(folder / FRAME_IDS)
    problems += faults
    with open_video(candidate.video) as video:
        window = pick_window(video.index.size_N, options.window_len, options.window_pick)
        expected = np.linspace(window.start, window.last, geometry.sequence_length, dtype=int).astype(np.int32)
        if frame_ids is not None:
            problems += _frame_ids(folder / FRAME_IDS, frame_ids, None if meta.get("damaged") else expected, geometry)
        facts = _video_facts(video)
    if problems:
        return problems
    paths += [folder / name for name in (POSITIONS, VISIBLE_INDICES, FRAME_IDS)]
    facts |= {"K": geometry.num_patches, "damaged": bool(meta.get("damaged")), "first_full": True}
    facts |= {"window": [window.start, window.last], "meta_hash": hash_file(folder / ASSET_META)}
    size = sum(path.stat().st_size for path in paths)
    signal = meta.get("signal", REFERENCE)
    return Result([*paths, folder / ASSET_META], hash_files(paths), size, signal, facts, 0.0)
