"""Codec assets of small videos, as `ov precompute` writes them, and folders that hold a meta only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ov_model.codec.assets import AssetOptions
from ov_model.codec.choose import ChooseOptions
from ov_model.codec.select import SelectOptions
from ov_model.geometry import Geometry
from ov_model.lake.asset_meta import asset_line
from ov_model.lake.files import write_json
from ov_model.lake.media import hash_media
from ov_model.lake.work import AssetsTask, Job, Sample, do_job
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
    root: Path, key: str, source: Path, *, task: str = "bench", hashed: bool = True, geometry: Geometry = SMALL
) -> Path:
    """The asset of a video, by the stage that `ov precompute` runs; without `hashed` as the reference writes it."""
    options = AssetOptions(ChooseOptions(geometry=geometry, select=SelectOptions("repeat")))
    size, content = hash_media(source)
    identity = {"content_hash": content, "size": size, "config_hash": "c0ffee", "stage_version": 1}
    line = asset_line({"task": task, "video": str(source), "key": key})
    folder = root / key
    job = Job(source, Sample(key, str(source), 0), None, assets=AssetsTask(folder, options, line, identity))
    result = do_job(job)["assets"]
    if result.error is not None:
        raise result.error
    if not hashed:
        meta = json.loads((folder / "meta.json").read_text())
        for name in (*identity, "output_hash", "signal", "signal_method"):
            del meta[name]
        write_json(folder / "meta.json", meta)
    return folder


def damage_inside(path: Path) -> None:
    """Break a JPEG's Huffman table: its header and its end stay whole."""
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xc4") + 5
    data[place : place + 16] = b"\xff" * 16
    path.write_bytes(bytes(data))
