"""What the meta file of a benchmark asset says: the published fields in their order, then ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.assets import AssetOptions, Window
from ov_model.codec.choose import Choice
from ov_model.geometry import Geometry

ASSET_FORMAT = "llava_codec_offline_precompute_v1"
_LINE_DEFAULTS = {"task": "", "split": "", "doc_id": -1, "n": 0, "video": "", "key": ""}


def flat_indices(pos_K3: NDArray[np.int32], geometry: Geometry) -> NDArray[np.int64]:
    """int64 [K]: t*G*G + h*G + w of each row."""
    t, h, w = pos_K3.astype(np.int64).T
    return t * geometry.patches_per_image + h * geometry.grid + w


def asset_line(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of `<task>_videos.jsonl` gives to the meta file."""
    return {name: data.get(name, default) for name, default in _LINE_DEFAULTS.items()}


def asset_meta(
    line: Mapping[str, Any],
    choice: Choice,
    window: Window,
    options: AssetOptions,
    identity: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The meta file; only created_at and stats differ between two runs on the same video.

    Args:
        line: see `asset_line`. identity: hashes, versions and the video's size in bytes.
    """
    return {
        "version": ASSET_FORMAT,
        **line,
        "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        "cfg": options_cfg(options),
        "debug": _debug(choice, window, options),
        "stats": {"elapsed_sec": round(seconds, 4)},
        **identity,
        "signal": choice.signal,
        "signal_method": choice.signal_method,
        **choice.over_time(),
        "repeated_tail": choice.repeated,
        "damaged": choice.damaged,
        "options": asdict(options),
    }


def options_cfg(options: AssetOptions) -> dict[str, Any]:
    """The published `cfg` of a meta file."""
    geometry, energy = options.choose.geometry, options.choose.energy
    return {
        "seq_len_frames": geometry.sequence_length,
        "num_images": geometry.num_images,
        "square_size": geometry.square_size,
        "patch_size": geometry.patch_size,
        "mv_unit_div": energy.mv_unit_div,
        "mv_pct": energy.mv_pct,
        "res_pct": energy.res_pct,
        "w_mv": energy.w_mv,
        "w_res": energy.w_res,
        "mv_compensate": energy.mv_compensate,
        "res_use_grad": energy.res_use_grad,
        "window_len": options.window_len,
        "window_pick": options.window_pick,
        "keep_mid_full_frame": options.keep_mid_full_frame,
        "mid_full_frame_index": options.mid_full_frame_index,
        "topk_mode": options.topk_mode,
        "time_bucket_count": options.time_bucket_count,
    }


def _debug(choice: Choice, window: Window, options: AssetOptions) -> dict[str, Any]:
    geometry = options.choose.geometry
    visible_K = flat_indices(choice.pos_K3, geometry)
    middle = options.whole_frames[1:]
    return {
        "seq_len_frames": geometry.sequence_length,
        "num_images": geometry.num_images,
        "square_size": geometry.square_size,
        "patch_size": geometry.patch_size,
        "hb": geometry.grid,
        "wb": geometry.grid,
        "S_total": geometry.patches_per_image,
        "S_valid": int(choice.valid_HW.sum()),
        "K_total": len(choice.pos_K3),
        "keep_first_full": True,
        "keep_mid_full": bool(middle),
        "mid_full_t": middle[0] if middle else -1,
        "topk_mode": options.topk_mode,
        "time_bucket_count": options.time_bucket_count,
        "vi_min": int(visible_K.min()),
        "vi_max": int(visible_K.max()),
        "T_all": choice.n_frames,
        "fps": choice.info.fps or 0.0,
        "window_pick": options.window_pick,
        "window_len": options.window_len,
        "start_offset": window.start,
        "end_offset": window.last,
        "pkt_size_sum": window.sums,
        "best": window.best,
        "seek_to": None,
        "decode_span": window.last - window.start + 1,
        "frame_ids_unique": len(np.unique(choice.frame_ids_T)),
    }
