"""One offline asset: the mosaics and positions of a benchmark's video, held against the geometry of the run.

Layout: REFERENCE.md section 8. Shapes: T sampled frames · N mosaics · G patches a side · K = N*G*G rows (t, h, w).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ov_model.errors import BadImage, OvError
from ov_model.geometry import Geometry
from ov_model.image_files import open_image, read_image
from ov_model.lake.asset_meta import flat_indices
from ov_model.lake.files import hash_json, read_array
from ov_model.lake.layout import ASSET_META, ASSET_MOSAIC, FRAME_IDS, POSITIONS, VISIBLE_INDICES

MISS, INVALID = "miss", "invalid"
_JPEG_END = b"\xff\xd9"
_GEOMETRY_OPTIONS = {
    "seq_len_frames": "sequence_length",
    "num_images": "num_images",
    "square_size": "square_size",
    "patch_size": "patch_size",
}


class AssetFault(OvError):
    """An asset that cannot be used. `status` is `miss` where something of it is not there, else `invalid`."""

    def __init__(self, message: str, status: str = INVALID) -> None:
        super().__init__(message)
        self.status = status


def mosaic_files(geometry: Geometry) -> list[str]:
    """Names of an asset's mosaics."""
    return [ASSET_MOSAIC.format(number) for number in range(geometry.num_images)]


def read_meta(folder: Path) -> dict[str, Any]:
    """An asset's meta.json.

    Raises:
        AssetFault: it is not there, or no JSON object.
    """
    path = folder / ASSET_META
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AssetFault(f"{path}: no such file; the asset is incomplete", MISS) from None
    except (OSError, ValueError) as error:
        raise AssetFault(f"{path}: unreadable ({error}); make the asset again") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("cfg", {}), dict):
        raise AssetFault(f"{path}: not a JSON object with an object cfg; make the asset again")
    return meta


def options_hash(meta: Mapping[str, Any]) -> str:
    """What the assets of one benchmark must share: every option of `cfg`, and our own configuration's hash."""
    return hash_json({"cfg": meta.get("cfg") or {}, "config_hash": meta.get("config_hash") or ""})[:16]


def check_options(cfg: Mapping[str, Any], geometry: Geometry, where: object) -> None:
    """Raise AssetFault where an asset was made with another geometry than the run's."""
    for option, name in _GEOMETRY_OPTIONS.items():
        wanted = getattr(geometry, name)
        if cfg.get(option) != wanted:
            raise AssetFault(
                f"{where}: made with other options: {option} is {cfg.get(option)!r}, this run's is {wanted}"
            )


def check_asset(folder: Path, geometry: Geometry, cfg: Mapping[str, Any]) -> None:
    """Hold an asset against the run without decoding its pictures.

    Raises:
        AssetFault: a file is missing (miss); options, count, size or end of a JPEG, positions, visible indices or frame
            numbers do not fit (invalid).
    """
    check_options(cfg, geometry, folder)
    names = mosaic_files(geometry)
    found = sorted(path.name for path in folder.glob("mosaic_*.jpg"))
    if missing := [name for name in names if name not in found]:
        raise AssetFault(f"{folder}: {missing[0]} is missing ({len(found)} of {len(names)} mosaics are there)", MISS)
    if len(found) > len(names):
        raise AssetFault(f"{folder}: {len(found)} mosaics; this run's geometry has {len(names)}")
    for name in names:
        _check_jpeg(folder / name, geometry.square_size)
    positions_K3 = read_positions(folder, geometry)
    visible_K = _optional(folder / VISIBLE_INDICES)
    if visible_K is not None and not np.array_equal(visible_K, flat_indices(positions_K3, geometry)):
        raise AssetFault(f"{folder}: {VISIBLE_INDICES} and {POSITIONS} name different patches")
    frame_ids_T = _optional(folder / FRAME_IDS)
    if frame_ids_T is not None and frame_ids_T.shape != (geometry.sequence_length,):
        raise AssetFault(f"{folder}: {FRAME_IDS} has shape {frame_ids_T.shape}; expected ({geometry.sequence_length},)")


def read_positions(folder: Path, geometry: Geometry) -> NDArray[np.int32]:
    """int32 [K,3] of an asset: sorted by (t, h, w), so that row j is tile j.

    Raises:
        AssetFault: not there (miss), or of another type, shape, range or order (invalid).
    """
    path = folder / POSITIONS
    positions_K3 = _read(path)
    expected = (geometry.num_patches, 3)
    if positions_K3.shape != expected or positions_K3.dtype.kind not in "iu":
        raise AssetFault(
            f"{path}: {positions_K3.dtype} {positions_K3.shape}; expected int32 {expected}: a row for every tile"
        )
    limits = (geometry.sequence_length, geometry.grid, geometry.grid)
    outside = ((positions_K3 < 0) | (positions_K3 >= limits)).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise AssetFault(f"{path}: row {row} is {positions_K3[row].tolist()}; (t, h, w) must lie below {limits}")
    flat_K = flat_indices(positions_K3.astype(np.int32), geometry)
    falls = flat_K[1:] < flat_K[:-1]
    if falls.any():
        row = int(falls.argmax()) + 1
        raise AssetFault(
            f"{path}: row {row} {positions_K3[row].tolist()} comes before row {row - 1}; rows must be sorted by "
            "(t, h, w), as the tiles of the mosaics are"
        )
    return positions_K3.astype(np.int32)


def read_mosaics(folder: Path, geometry: Geometry) -> list[Image.Image]:
    """The N mosaics, decoded, RGB.

    Raises:
        AssetFault: one is missing or does not decode.
    """
    mosaics = []
    for name in mosaic_files(geometry):
        try:
            mosaics.append(read_image(folder / name))
        except FileNotFoundError:
            raise AssetFault(f"{folder}: {name} is missing", MISS) from None
        except BadImage as error:
            raise AssetFault(f"{folder / name}: does not decode ({error}); make the asset again") from None
    return mosaics


def hash_asset(folder: Path, geometry: Geometry) -> str:
    """SHA-256 over the SHA-256 of each file but the meta: the `output_hash` that our metas name."""
    digest = hashlib.sha256()
    for name in (*mosaic_files(geometry), POSITIONS, VISIBLE_INDICES, FRAME_IDS):
        if (folder / name).exists():
            digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def _check_jpeg(path: Path, side: int) -> None:
    try:
        with open(path, "rb") as stream, open_image(stream) as image:
            kind, size = image.format, image.size
            stream.seek(-len(_JPEG_END), 2)
            whole = stream.read() == _JPEG_END
    except (OSError, ValueError, BadImage) as error:
        raise AssetFault(f"{path}: not a picture ({error}); make the asset again") from None
    if kind != "JPEG" or size != (side, side):
        raise AssetFault(f"{path}: {kind} of {size[0]}x{size[1]} pixels; expected a JPEG of {side}x{side}")
    if not whole:
        raise AssetFault(f"{path}: ends in the middle of the picture; make the asset again")


def _read(path: Path) -> NDArray[Any]:
    try:
        return read_array(path)
    except FileNotFoundError:
        raise AssetFault(f"{path.parent}: {path.name} is missing", MISS) from None
    except (OSError, ValueError, EOFError) as error:
        raise AssetFault(f"{path}: not an array ({error}); make the asset again") from None


def _optional(path: Path) -> NDArray[Any] | None:
    """An array that some writers leave out."""
    return _read(path) if path.exists() else None
