"""Codec assets of small videos, as `ov precompute` writes them, and folders that hold a meta only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ov_model.codec.choose import ChooseOptions, choose_patches
from ov_model.codec.select import SelectOptions
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_file, write_array, write_json
from ov_model.mosaic.pack import pack_mosaics, pad_to_square, sort_positions
from ov_model.mosaic.write import encode_jpeg
from tests.factories import make_video

SMALL = Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)


def cfg(geometry: Geometry = SMALL, **changes: Any) -> dict[str, Any]:
    """The reference's options."""
    return {
        "seq_len_frames": geometry.sequence_length,
        "num_images": geometry.num_images,
        "square_size": geometry.square_size,
        "patch_size": geometry.patch_size,
        "topk_mode": "global",
        **changes,
    }


def video(path: Path, seed: int = 0, frames: int = 12) -> Path:
    """A small clip whose content follows the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_video(path, seed=seed, frames=frames)


def write_meta(folder: Path, **fields: Any) -> Path:
    """A folder with a meta alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps({"key": folder.name, "cfg": cfg(), **fields}))
    return folder


def write_asset(
    root: Path,
    key: str,
    source: Path,
    *,
    task: str = "bench",
    hashed: bool = True,
    geometry: Geometry = SMALL,
    **meta: Any,
) -> Path:
    """The asset of a video; without `hashed` as the reference writes it."""
    options = ChooseOptions(geometry=geometry, select=SelectOptions.resolve("zero", True, False))
    choice = choose_patches(source, options, keep_frames=True)
    positions = sort_positions(choice.pos_K3)
    frames = [
        (np.flatnonzero(choice.frame_ids_T == index), pad_to_square(content, choice.square))
        for index, content in choice.contents.items()
    ]
    folder = root / key
    for number, mosaic in enumerate(pack_mosaics(frames, positions, geometry)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"mosaic_{number:03d}.jpg").write_bytes(encode_jpeg(mosaic, 95))
    flat = positions.astype(np.int64) @ (geometry.patches_per_image, geometry.grid, 1)
    write_array(folder / "positions_thw.npy", positions)
    write_array(folder / "visible_indices.npy", flat)
    write_array(folder / "frame_ids.npy", choice.frame_ids_T)
    values: dict[str, Any] = {"version": 1, "task": task, "key": key, "video": str(source), "cfg": cfg(geometry)}
    if hashed:
        content = hash_file(source)
        values |= {"content_hash": content, "size": source.stat().st_size, "signal": choice.signal}
        values |= {"config_hash": "c0ffee", "output_hash": hash_file(folder / "mosaic_000.jpg")}
    write_json(folder / "meta.json", {**values, **meta})
    return folder
