"""The hot loops of the signals: paint vectors on a grid, predict a frame from its neighbors, measure what differs.

Arrays in, arrays out; one thread, compiled once and cached. Shapes: H, W luma in pixels · h, w its grid of 4x4 blocks ·
R, C its grid of 8x8 cells · B motion vectors · F reference frames. Vectors are FFmpeg's AVMotionVector as columns
(`vector_columns`).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 4
CELL = 8
# Columns of a vector row.
LIST, WIDTH, HEIGHT, CENTER_X, CENTER_Y, MOTION_X, MOTION_Y, SCALE = range(8)


def vector_columns(vectors: NDArray[np.void]) -> NDArray[np.int32]:
    """FFmpeg's motion vectors (PyAV's structured array) as int32 [B, 8]; list is 0 (`source` < 0) or 1."""
    rows_B8 = np.empty((len(vectors), 8), np.int32)
    rows_B8[:, LIST] = vectors["source"] > 0
    for column, name in (
        (WIDTH, "w"),
        (HEIGHT, "h"),
        (CENTER_X, "dst_x"),
        (CENTER_Y, "dst_y"),
        (MOTION_X, "motion_x"),
        (MOTION_Y, "motion_y"),
        (SCALE, "motion_scale"),
    ):
        rows_B8[:, column] = vectors[name]
    return rows_B8


@numba.njit(cache=True, nogil=True)
def paint_motion(rows_B8: NDArray[np.int32], height: int, width: int) -> NDArray[np.int16]:
    """List-0 vectors on the 4x4 grid: int16 [h, w, 2] (x, y) in whole pixels, toward zero; 0 where none."""
    rows, columns = (height + BLOCK - 1) // BLOCK, (width + BLOCK - 1) // BLOCK
    motion_hw2 = np.zeros((rows, columns, 2), np.int16)
    for b in range(rows_B8.shape[0]):
        if rows_B8[b, LIST] != 0 or rows_B8[b, SCALE] == 0:
            continue
        left = (rows_B8[b, CENTER_X] - rows_B8[b, WIDTH] // 2) // BLOCK
        top = (rows_B8[b, CENTER_Y] - rows_B8[b, HEIGHT] // 2) // BLOCK
        move_x = int(rows_B8[b, MOTION_X] / rows_B8[b, SCALE])
        move_y = int(rows_B8[b, MOTION_Y] / rows_B8[b, SCALE])
        for y in range(max(top, 0), min(top + (rows_B8[b, HEIGHT] + BLOCK - 1) // BLOCK, rows)):
            for x in range(max(left, 0), min(left + (rows_B8[b, WIDTH] + BLOCK - 1) // BLOCK, columns)):
                motion_hw2[y, x, 0] = move_x
                motion_hw2[y, x, 1] = move_y
    return motion_hw2


@numba.njit(cache=True, nogil=True)
def paint_cells(rows_B8: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Each 8x8 cell's vectors: int32 [R, C, 2 lists, 3] as (x, y, scale); scale 0 where the list is not used."""
    cells = np.zeros(((height + CELL - 1) // CELL, (width + CELL - 1) // CELL, 2, 3), np.int32)
    for b in range(rows_B8.shape[0]):
        left = max((rows_B8[b, CENTER_X] - rows_B8[b, WIDTH] // 2) // CELL, 0)
        top = max((rows_B8[b, CENTER_Y] - rows_B8[b, HEIGHT] // 2) // CELL, 0)
        for y in range(top, min(top + max(rows_B8[b, HEIGHT] // CELL, 1), cells.shape[0])):
            for x in range(left, min(left + max(rows_B8[b, WIDTH] // CELL, 1), cells.shape[1])):
                cells[y, x, rows_B8[b, LIST], 0] = rows_B8[b, MOTION_X]
                cells[y, x, rows_B8[b, LIST], 1] = rows_B8[b, MOTION_Y]
                cells[y, x, rows_B8[b, LIST], 2] = rows_B8[b, SCALE]
    return cells


@numba.njit(cache=True, nogil=True)
def _fetch(out, reference_HW, top, left, move_x, move_y, scale):
    """The 8x8 cell at (top, left) displaced by (move_x, move_y)/scale pixels, bilinear, edges repeated."""
    last_y, last_x = reference_HW.shape[0] - 1, reference_HW.shape[1] - 1
    y0, x0 = top + move_y // scale, left + move_x // scale
    fy, fx = move_y % scale, move_x % scale
    area = scale * scale
    for y in range(CELL):
        upper, lower = min(max(y0 + y, 0), last_y), min(max(y0 + y + 1, 0), last_y)
        for x in range(CELL):
            near, far = min(max(x0 + x, 0), last_x), min(max(x0 + x + 1, 0), last_x)
            over = (scale - fx) * reference_HW[upper, near] + fx * reference_HW[upper, far]
            under = (scale - fx) * reference_HW[lower, near] + fx * reference_HW[lower, far]
            out[y, x] = ((scale - fy) * over + fy * under + area // 2) // area


@numba.njit(cache=True, nogil=True)
def _error(luma_HW, top, left, bottom, right, guess):
    total = 0
    for y in range(top, bottom):
        for x in range(left, right):
            total += abs(np.int32(luma_HW[y, x]) - guess[y - top, x - left])
    return total


@numba.njit(cache=True, nogil=True)
def prediction_error(
    luma_HW: NDArray[np.uint8],
    references_FHW: NDArray[np.uint8],
    past: int,
    cells_RC23: NDArray[np.int32],
    gate_RC: NDArray[np.float32],
    contrast: bool,
) -> NDArray[np.uint8]:
    """Absolute difference of a frame from its best prediction: uint8 [H, W], 0 in cells that the gate closes.

    references_FHW: the `past` nearest earlier frames, nearest first, then the later ones. A cell is predicted from each
    frame in the direction its vectors name, and from the mean of both directions' nearest; the least error counts.
    Cells without vectors: the luma's distance from its 4x4 mean if `contrast`, else 0. gate_RC: a cell counts when the
    largest mean error of its 4x4 blocks exceeds it.
    """
    height, width = luma_HW.shape
    out = np.zeros((height, width), np.uint8)
    guess = np.zeros((CELL, CELL), np.int32)
    best = np.zeros((CELL, CELL), np.int32)
    first = np.zeros((CELL, CELL), np.int32)
    count = references_FHW.shape[0]
    for row in range(cells_RC23.shape[0]):
        for column in range(cells_RC23.shape[1]):
            top, left = row * CELL, column * CELL
            bottom, right = min(top + CELL, height), min(left + CELL, width)
            least = -1
            for direction in range(2):
                move_x, move_y, scale = cells_RC23[row, column, direction]
                if scale == 0:
                    continue
                begin, end = (0, past) if direction == 0 else (past, count)
                for f in range(begin, end):
                    _fetch(guess, references_FHW[f], top, left, move_x, move_y, scale)
                    error = _error(luma_HW, top, left, bottom, right, guess)
                    if least < 0 or error < least:
                        least = error
                        best[:] = guess
                    if f == begin and direction == 0:
                        first[:] = guess
                    if f == begin and direction == 1 and past > 0 and cells_RC23[row, column, 0, 2] != 0:
                        guess[:] = (guess + first + 1) >> 1
                        error = _error(luma_HW, top, left, bottom, right, guess)
                        if error < least:
                            least = error
                            best[:] = guess
                    if least == 0:
                        break
            intra = cells_RC23[row, column, 0, 2] == 0 and cells_RC23[row, column, 1, 2] == 0
            if intra and contrast:
                _flat(best, luma_HW, top, left, bottom, right)
                least = _error(luma_HW, top, left, bottom, right, best)
            if least > 0 and _largest_mean(luma_HW, top, left, bottom, right, best) > gate_RC[row, column]:
                for y in range(top, bottom):
                    for x in range(left, right):
                        out[y, x] = min(abs(np.int32(luma_HW[y, x]) - best[y - top, x - left]), 128)
    return out


@numba.njit(cache=True, nogil=True)
def _largest_mean(luma_HW, top, left, bottom, right, guess):
    largest = 0.0
    for y0 in range(top, bottom, BLOCK):
        for x0 in range(left, right, BLOCK):
            y1, x1 = min(y0 + BLOCK, bottom), min(x0 + BLOCK, right)
            total = _error(luma_HW, y0, x0, y1, x1, guess[y0 - top :, x0 - left :])
            largest = max(largest, total / ((y1 - y0) * (x1 - x0)))
    return largest


@numba.njit(cache=True, nogil=True)
def _flat(out, luma_HW, top, left, bottom, right):
    for y0 in range(top, bottom, BLOCK):
        for x0 in range(left, right, BLOCK):
            y1, x1 = min(y0 + BLOCK, bottom), min(x0 + BLOCK, right)
            total = 0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    total += luma_HW[y, x]
            size = (y1 - y0) * (x1 - x0)
            out[y0 - top : y1 - top, x0 - left : x1 - left] = (total + size // 2) // size
