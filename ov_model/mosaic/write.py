"""Mosaics, positions and single patches as the files of the published layout."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ov_model.codec.energy import SquareMap
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from ov_model.lake.files import array_bytes, write_folder
from ov_model.lake.layout import POSITIONS, mosaic_name
from ov_model.mosaic.pack import LAYOUTS, pack_mosaics, pad_to_square, sort_positions

_MOSAIC = re.compile(r"_\d{3}\.jpg$")


@dataclass(frozen=True)
class PackOptions:
    """Every option that decides a sample's mosaics.

    first_full: None takes what stage 1 did; True or False must agree with it. export_patches writes single patches
    instead of mosaics.
    """

    geometry: Geometry = field(default_factory=Geometry)
    layout: str = "time_spatial"
    first_full: bool | None = None
    write_positions: bool = True
    export_patches: bool = False
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UsageError(f"layout is {self.layout!r}; it must be one of {', '.join(LAYOUTS)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f"jpeg_quality is {self.jpeg_quality}; it must lie in 1..100")


def encode_jpeg(image_HWC: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes, 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def write_pack(
    folder: Path,
    media: str,
    contents: Iterable[tuple[int, NDArray[np.uint8]]],
    frame_ids_T: NDArray[np.int32],
    pos_K3: NDArray[np.int32],
    square: SquareMap,
    options: PackOptions,
    beside: Mapping[str, bytes] | None = None,
) -> tuple[list[str], str, int]:
    """Write a sample's mosaics (or patches) and positions into its folder.

    Args:
        media: the path that names the files.
        contents: (frame index, uint8 [Hn, Wn, 3]) for each distinct sampled frame.
        beside: more files of the folder, by name.
    What an earlier configuration left there (mosaics of a higher number, positions) is removed.

    Returns:
        (file names relative to the folder, content hash, bytes).
    """
    sorted_K3 = sort_positions(pos_K3)
    shown = {int(index): np.flatnonzero(frame_ids_T == index) for index in np.unique(frame_ids_T)}
    squares = ((shown[index], pad_to_square(content, square)) for index, content in contents)
    geometry = options.geometry
    mosaics = pack_mosaics(squares, sorted_K3, geometry, "time_spatial" if options.export_patches else options.layout)
    if options.export_patches:
        files = _patch_files(mosaics, sorted_K3, geometry, options.jpeg_quality)
    else:
        files = {mosaic_name(media, i): encode_jpeg(image, options.jpeg_quality) for i, image in enumerate(mosaics)}
    if options.write_positions:
        files[POSITIONS] = array_bytes(sorted_K3)
    files |= beside or {}
    write_folder(folder, files)
    remove_older(folder, files)
    digest = hashlib.sha256()
    for data in files.values():
        digest.update(hashlib.sha256(data).digest())
    return list(files), digest.hexdigest(), sum(map(len, files.values()))


def remove_older(folder: Path, names: Collection[str]) -> None:
    """Remove the mosaics and positions of a folder that are not among `names`."""
    for path in folder.iterdir():
        if is_older(path.name, names):
            path.unlink()


def is_older(name: str, names: Collection[str]) -> bool:
    """Whether a file beside those just written is a mosaic or positions of other options."""
    return name not in names and (name == POSITIONS or bool(_MOSAIC.search(name)))


def _patch_files(
    mosaics: NDArray[np.uint8], sorted_K3: NDArray[np.int32], geometry: Geometry, quality: int
) -> dict[str, bytes]:
    """`patches/{img}_{row}_{col}_{t}_{h}_{w}.jpg` for every row."""
    g, p = geometry.grid, geometry.patch_size
    tiles = mosaics.reshape(geometry.num_images, g, p, g, p, 3).swapaxes(2, 3).reshape(-1, p, p, 3)
    files = {}
    for j, (tile, (t, h, w)) in enumerate(zip(tiles, sorted_K3.tolist(), strict=True)):
        image, cell = divmod(j, geometry.patches_per_image)
        name = f"patches/{image}_{cell // g}_{cell % g}_{t}_{h}_{w}.jpg"
        files[name] = encode_jpeg(np.ascontiguousarray(tile), quality)
    return files
