"""Small pictures for the UI: a few mosaics, and where the chosen patches lie, as small Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ov_model.geometry import Geometry
from ov_model.image_files import read_image
from ov_model.lake.files import read_array

BUDGET_BYTES = 64 * 1024
_TILE = 4
_COLUMNS = 4
_GAP = 4
_QUALITIES = (80, 70, 60, 50, 40, 30, 20, 10)
_DIM = 0.3


@dataclass(frozen=True)
class Pack:
    """What is shown of one sample: its mosaics in order and the positions of their tiles."""

    title: str
    mosaics: tuple[Path, ...]
    positions: Path


def preview_markdown(packs: Sequence[Pack], geometry: Geometry, budget: int = BUDGET_BYTES) -> str:
    """A picture per pack as Markdown with data URIs; the whole text stays within `budget` bytes."""
    legend = (
        f"Above: the first mosaics of {geometry.num_images}. Below: how often each patch was chosen over "
        f"{geometry.sequence_length} frames, on the first frame; then the patches chosen of frames 1, 2, 3."
    )
    parts = [legend]
    share = (budget - len(legend.encode()) - 16) // max(len(packs), 1)
    for pack in packs:
        title = f"**{_plain(pack.title)}**"
        room = share - len(title.encode()) - len("\n\n\n![](data:image/jpeg;base64,)\n")
        jpeg = encode_within(contact_sheet(pack, geometry), room * 3 // 4 - 2)
        if jpeg is not None:
            parts.append(f"{title}\n\n![](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})")
    return "\n\n".join(parts)


def png_markdown(png: bytes, alternative: str) -> str:
    """Markdown that shows a PNG."""
    return f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})"


def plot(png: bytes, alternative: str) -> dg.MarkdownMetadataValue:
    """A PNG as the UI shows it."""
    return dg.MetadataValue.md(png_markdown(png, alternative))


def contact_sheet(pack: Pack, geometry: Geometry) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: two rows of pictures, mosaics above, heat map and first frames below."""
    pos_K3 = read_array(pack.positions)
    tiles_K = [_tiles(_thumbnail(path, geometry.grid), geometry.grid) for path in pack.mosaics]
    tile_KHWC = np.concatenate(tiles_K)[: len(pos_K3)]
    above = [_untile(tiles, geometry.grid) for tiles in tiles_K[:_COLUMNS]]
    first_HWC = lay_out(tile_KHWC[::-1], pos_K3[::-1], geometry.grid)
    below = [heat_map(pos_K3, first_HWC, geometry.grid)]
    for t in range(1, _COLUMNS):
        chosen = pos_K3[:, 0] == t
        base = (first_HWC * _DIM).astype(np.uint8)
        below.append(lay_out(tile_KHWC[chosen], pos_K3[chosen], geometry.grid, base))
    return np.concatenate([_side_by_side(above), _side_by_side(below)], axis=0)


def heat_map(pos_K3: NDArray[np.int32], base_HWC: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """The picture with each patch colored by how often it was chosen after the first frame."""
    later_K3 = pos_K3[pos_K3[:, 0] > 0]
    count_HW = np.zeros((grid, grid), np.float32)
    np.add.at(count_HW, (later_K3[:, 1], later_K3[:, 2]), 1)
    share_HW = count_HW / max(count_HW.max(), 1)
    share = np.kron(share_HW, np.ones((_TILE, _TILE), np.float32))
    heat_HWC = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = np.sqrt(share)[..., None] * 0.75
    return (base_HWC * (1 - weight) * 0.8 + heat_HWC * weight).astype(np.uint8)


def lay_out(
    tile_KHWC: NDArray[np.uint8],
    pos_K3: NDArray[np.int32],
    grid: int,
    base_HWC: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Tiles at their own place in the frame, later rows over earlier ones, on `base_HWC` (black without)."""
    if base_HWC is None:
        base_HWC = np.zeros((grid * _TILE, grid * _TILE, 3), np.uint8)
    canvas = _tiles(base_HWC, grid).copy()
    for cell, tile in zip((pos_K3[:, 1] * grid + pos_K3[:, 2]).tolist(), tile_KHWC, strict=True):
        canvas[cell] = tile
    return _untile(canvas, grid)


def encode_within(picture_HWC: NDArray[np.uint8], limit: int) -> bytes | None:
    """The picture as a JPEG of at most `limit` bytes: the best quality that fits, else at half the size."""
    while min(picture_HWC.shape[:2]) >= 32:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            Image.fromarray(picture_HWC).save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= limit:
                return buffer.getvalue()
        height, width = picture_HWC.shape[:2]
        picture_HWC = _as_uint8(cv2.resize(picture_HWC, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return None


def _thumbnail(path: Path, grid: int) -> NDArray[np.uint8]:
    picture_HWC = np.asarray(read_image(path))
    return _as_uint8(cv2.resize(picture_HWC, (grid * _TILE, grid * _TILE), interpolation=cv2.INTER_AREA))


def _tiles(picture_HWC: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    split = picture_HWC.reshape(grid, _TILE, grid, _TILE, 3)
    return split.transpose(0, 2, 1, 3, 4).reshape(grid * grid, _TILE, _TILE, 3)


def _untile(tile_KHWC: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    rows = tile_KHWC.reshape(grid, grid, _TILE, _TILE, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(grid * _TILE, grid * _TILE, 3)


def _side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height, width, _ = pictures[0].shape
    row = np.full((height + _GAP, _COLUMNS * (width + _GAP), 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        row[:height, i * (width + _GAP) : i * (width + _GAP) + width] = picture
    return row


def _as_uint8(array: object) -> NDArray[np.uint8]:
    return np.asarray(array, np.uint8)


def _plain(text: str) -> str:
    """A title that Markdown takes as text."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in text.replace("\n", " "))[:200]
