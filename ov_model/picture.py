"""One picture of a sample: its sampled frames with the chosen patches lit and outlined, its mosaics beside them.

Images in, image out. Shapes: T sampled frames · G patches a side of the square · S square side · Hn, Wn content size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ov_model.codec.energy import SquareMap

_BACKGROUND, _TEXT, _FAINT = (17, 19, 24), (226, 229, 235), (140, 147, 160)
ACCENT = (255, 176, 32)
"""Color of the outline."""
_DIMMED = 0.42
_LONG_SIDE = 288
_SHORTEST_LONG_SIDE = 72
_ASPECT = 1.5
_GAP, _MARGIN, _LABEL = 10, 28, 18
_MOSAIC_COLUMNS = 2
_MAX_MOSAIC = 576


@dataclass(frozen=True)
class Sheet:
    """What is drawn.

    title, lines: text above. frames: sampled frame number -> uint8 [Hn, Wn, 3]. frame_ids_T: the number shown at each
    t. pos_K3: int32 [K, 3] rows (t, h, w). mosaics: images with their captions.
    """

    title: str
    lines: Sequence[str]
    frames: Mapping[int, NDArray[np.uint8]]
    frame_ids_T: NDArray[np.int32]
    pos_K3: NDArray[np.int32]
    square: SquareMap
    grid: int
    mosaics: Sequence[tuple[str, Image.Image]]


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The picture, RGB."""
    count = len(sheet.frame_ids_T)
    cell_w, cell_h = _cell_size(sheet.square, count)
    columns = _columns(count, cell_w, cell_h)
    rows = -(-count // columns)
    frames_w = columns * (cell_w + _GAP) - _GAP
    frames_h = rows * (cell_h + _LABEL + _GAP) - _GAP
    side = _mosaic_side(len(sheet.mosaics), frames_h)
    mosaic_columns = min(_MOSAIC_COLUMNS, len(sheet.mosaics))
    mosaic_rows = -(-len(sheet.mosaics) // _MOSAIC_COLUMNS)
    mosaics_w = mosaic_columns * (side + _GAP) + 2 * _GAP if sheet.mosaics else 0
    mosaics_h = mosaic_rows * (side + _LABEL + _GAP) - _GAP
    head_h = 42 + 24 * len(sheet.lines) + 12

    width = max(2 * _MARGIN + frames_w + mosaics_w, _text_width(sheet))
    height = 2 * _MARGIN + head_h + max(frames_h, mosaics_h)
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN - 6), sheet.title, _TEXT, _font(30))
    for number, line in enumerate(sheet.lines):
        draw.text((_MARGIN, _MARGIN + 36 + 24 * number), line, _FAINT, _font(17))

    top = _MARGIN + head_h
    chosen_TGG = chosen_cells(sheet.pos_K3, count, sheet.grid)
    for t, frame_id in enumerate(sheet.frame_ids_T.tolist()):
        x = _MARGIN + t % columns * (cell_w + _GAP)
        y = top + t // columns * (cell_h + _LABEL + _GAP)
        picture = light_chosen(sheet.frames[frame_id], chosen_TGG[t], sheet.square, (cell_w, cell_h))
        canvas.paste(picture, (x, y + _LABEL))
        patches = int(chosen_TGG[t].sum())
        draw.text((x, y), f"t={t}", _TEXT, _font(13))
        detail = f"frame {frame_id} · {patches}" if cell_w >= 120 else f"{patches}"
        draw.text((x + cell_w, y + 1), detail, _FAINT, _font(12), anchor="ra")
    left = _MARGIN + frames_w + 3 * _GAP
    for index, (caption, mosaic) in enumerate(sheet.mosaics):
        x = left + index % _MOSAIC_COLUMNS * (side + _GAP)
        y = top + index // _MOSAIC_COLUMNS * (side + _LABEL + _GAP)
        draw.text((x, y), caption, _TEXT, _font(13))
        canvas.paste(mosaic.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (x, y + _LABEL))
    return canvas


def chosen_cells(pos_K3: NDArray[np.int32], count: int, grid: int) -> NDArray[np.bool_]:
    """bool [T, G, G]: True where a patch was chosen."""
    chosen_TGG = np.zeros((count, grid, grid), bool)
    chosen_TGG[pos_K3[:, 0], pos_K3[:, 1], pos_K3[:, 2]] = True
    return chosen_TGG


def light_chosen(
    frame_HWC: NDArray[np.uint8], chosen_GG: NDArray[np.bool_], square: SquareMap, size: tuple[int, int]
) -> Image.Image:
    """A frame's content at `size` (width, height): chosen patches as they are and outlined, the others gray and dark.

    A frame of which everything or nothing is chosen has no outline within.
    """
    width, height = size
    small = Image.fromarray(frame_HWC).resize(size, Image.Resampling.LANCZOS)
    gray = small.convert("L").point([int(value * _DIMMED) for value in range(256)])
    patch = square.out_size / len(chosen_GG)
    row_H = ((np.arange(height) + 0.5) * square.Hn / height + square.pad_top) // patch
    column_W = ((np.arange(width) + 0.5) * square.Wn / width + square.pad_left) // patch
    mask_HW = chosen_GG[row_H.astype(int)[:, None], column_W.astype(int)[None, :]]
    picture = np.where(mask_HW[..., None], np.asarray(small), np.asarray(gray)[..., None])
    picture[_inner_edge(mask_HW)] = ACCENT
    return Image.fromarray(picture.astype(np.uint8))


def _inner_edge(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask that have a neighbor outside it, bool [H, W]; the picture's border counts as inside."""
    padded = np.pad(mask_HW, 1, mode="edge")
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask_HW & ~surrounded


def _cell_size(square: SquareMap, count: int) -> tuple[int, int]:
    """(width, height) of a frame in the picture; many frames are drawn smaller."""
    long_side = min(_LONG_SIDE, max(_SHORTEST_LONG_SIDE, round(_LONG_SIDE * math.sqrt(64 / max(count, 1)))))
    scale = long_side / max(square.Wn, square.Hn)
    return max(8, round(square.Wn * scale)), max(8, round(square.Hn * scale))


def _columns(count: int, cell_w: int, cell_h: int) -> int:
    """Frames a row: a divisor of their number where one comes near the wanted shape."""
    wanted = math.sqrt(count * (cell_h + _LABEL) / cell_w * _ASPECT)
    divisors = [n for n in range(1, count + 1) if count % n == 0 and wanted / 1.6 <= n <= wanted * 1.6]
    return min(divisors or [max(1, round(wanted))], key=lambda n: abs(math.log(n / wanted)))


def _mosaic_side(count: int, height: int) -> int:
    """Side of a mosaic, so that all of them stand as high as the frames."""
    rows = max(1, -(-count // _MOSAIC_COLUMNS))
    return max(96, min(_MAX_MOSAIC, (height + _GAP) // rows - _LABEL - _GAP))


def _text_width(sheet: Sheet) -> int:
    widths = [_font(30).getlength(sheet.title), *(_font(17).getlength(line) for line in sheet.lines)]
    return 2 * _MARGIN + round(max(widths))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
