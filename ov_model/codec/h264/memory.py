"""What reading a picture's macroblocks keeps: facts that later macroblocks need, and the residual.

Shapes: M macroblocks · F facts · R, C 4x4 blocks · H, W pixels of whole macroblocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Columns of Picture.macro_MF and of its motion_2RC3.
SLICE, FLAGS, PATTERN, DC, CHROMA_MODE, QP = range(6)
REF = 2
# Flags of a macroblock.
INTRA, NXN, WHOLE, PCM, SKIPPED, DIRECT, EIGHT = 1, 2, 4, 8, 16, 32, 64


class Picture(NamedTuple):
    """What is kept of one picture; `blank_picture` makes one.

    macro_MF: facts of each macroblock, by SLICE (-1: not read yet), FLAGS, PATTERN (coded_block_pattern), DC
    (coded_block_flag of the DC blocks), CHROMA_MODE, QP. count_3RC: coefficients of each 4x4 block of Y, Cb, Cr.
    motion_2RC3: of each list and 4x4 block, |mvd| in x and y (clipped) and whether ref_idx is above 0 (REF).
    residual_HW: the result, the residual's absolute value, at most 128.
    """

    macro_MF: NDArray[np.int32]
    count_3RC: NDArray[np.uint8]
    motion_2RC3: NDArray[np.uint8]
    residual_HW: NDArray[np.uint8]


class SliceFacts(NamedTuple):
    """A slice's header as the compiled code takes it."""

    number: int
    first_mb: int
    kind: int
    refs_0: int
    refs_1: int
    qp: int
    cabac: bool
    transform_8x8: bool
    direct_8x8: bool
    gray: bool
    depth: int
    bypass: bool
    scale_4: NDArray[np.int32]
    scale_8: NDArray[np.int32]


class Place(NamedTuple):
    """Where a macroblock is, and whether its left and upper neighbors can be referred to."""

    mb: int
    x: int
    y: int
    left: bool
    up: bool
    above: int


def workspace() -> NDArray[np.int64]:
    """Scratch memory for `read_slice`, zeroed: coefficients, luma DC, and what one macroblock hands to the next."""
    return np.zeros(82, np.int64)


def blank_picture(width_mbs: int, height_mbs: int) -> Picture:
    """A picture of which nothing has been read."""
    m = width_mbs * height_mbs
    rows, columns = 4 * height_mbs, 4 * width_mbs
    macro_MF = np.zeros((m, 6), np.int32)
    macro_MF[:, SLICE] = -1
    return Picture(
        macro_MF=macro_MF,
        count_3RC=np.zeros((3, rows, columns), np.uint8),
        motion_2RC3=np.zeros((2, rows, columns, 3), np.uint8),
        residual_HW=np.zeros((4 * rows, 4 * columns), np.uint8),
    )
