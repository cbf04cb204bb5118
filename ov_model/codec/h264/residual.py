"""The residual of H.264 macroblocks: luma read, scaled, transformed; chroma (4:2:0) read past. Compiled.

Source: ITU-T H.264, 7.3.5.3 (syntax), 9.2.1 (nC), 9.3.3.1.1.9 (contexts), 8.5 (scaling).
"""

from __future__ import annotations

import numpy as np

from ov_model.codec.h264 import tables
from ov_model.codec.h264.entropy import (
    CHROMA_AC,
    CHROMA_DC,
    LUMA_4,
    LUMA_8,
    LUMA_AC,
    LUMA_DC,
    decide,
    inner,
    read_block_cabac,
    read_block_cavlc,
)
from ov_model.codec.h264.memory import DC, EIGHT, FLAGS, INTRA, WHOLE
from ov_model.codec.h264.transform import add_4, add_8, hadamard_4, scale_4, scale_8

# Plane 0, and the coeff_token table of chroma DC (NumPy's integers, as the categories are).
LUMA, CHROMA_TABLE = np.int64(0), np.int64(4)
_ZIGZAG_4, _ZIGZAG_8 = tables.ZIGZAG_4, tables.ZIGZAG_8
_RASTER = tables.BLOCK_RASTER


@inner
def read_luma(r, picture, h, at, flags, pattern, qp, coefficients, dc):
    """The luma residual of one macroblock, read, scaled, transformed, written."""
    intra = 1 - (flags & INTRA)
    plain = h.bypass and qp == 0
    shift = h.depth - 8
    scales, sixth = h.scale_4[intra], qp % 6
    if flags & WHOLE:
        dc[:] = 0
        n = _dc_block(r, picture, h, at, LUMA_DC, LUMA)
        if n < 0:
            return False
        for i in range(n):
            dc[_ZIGZAG_4[r.places[i]]] = r.levels[i]
        if n > 0 and not plain:
            hadamard_4(dc)
            for i in range(16):
                dc[i] = scale_8(dc[i], scales[sixth, 0], qp)
    for k in range(16):
        quarter = k >> 2
        raster = _RASTER[k]
        x, y = 4 * at.x + (raster & 3), 4 * at.y + (raster >> 2)
        coded = pattern >> quarter & 1
        if flags & EIGHT:
            if k & 3 == 0 and coded and not _luma_8(r, picture, h, at, x, y, intra, qp, coefficients):
                return False
            continue
        n = np.int64(0)
        first = 1 if flags & WHOLE else 0
        if coded:
            category = LUMA_AC if first else LUMA_4
            n = _block(r, picture, h, at, category, LUMA, x, y)
            if n < 0:
                return False
        if n == 0 and not (first and dc[raster]):
            continue
        for i in range(n):
            place = _ZIGZAG_4[r.places[i] + first]
            level = r.levels[i]
            coefficients[place] = level if plain else scale_4(level, scales[sixth, place], qp)
        if first:
            coefficients[0] = dc[raster]
        add_4(picture.residual_HW, 4 * y, 4 * x, coefficients, shift, plain)
    return True


@inner
def _luma_8(r, picture, h, at, x, y, intra, qp, coefficients):
    """One 8x8 block; in CAVLC it comes as four interleaved 4x4 ones."""
    plain = h.bypass and qp == 0
    scales, sixth = h.scale_8[intra], qp % 6
    total = np.int64(0)
    for part in range(1 if h.cabac else 4):
        if h.cabac:
            n = read_block_cabac(r, LUMA_8)
            picture.count_3RC[0, y : y + 2, x : x + 2] = 1
        else:
            n = _block(r, picture, h, at, LUMA_4, LUMA, x + (part & 1), y + (part >> 1))
            if n < 0:
                return False
        for i in range(n):
            place = _ZIGZAG_8[r.places[i] if h.cabac else 4 * r.places[i] + part]
            level = r.levels[i]
            coefficients[place] = level if plain else scale_8(level, scales[sixth, place], qp)
        total += n
    if total:
        add_8(picture.residual_HW, 4 * y, 4 * x, coefficients, h.depth - 8, plain)
    return True


@inner
def read_chroma(r, picture, h, at, flags, pattern):
    """Read past the chroma residual (4:2:0), keeping the counts."""
    if pattern >> 4 == 0:
        return True
    for component in range(1, 3):
        if _dc_block(r, picture, h, at, CHROMA_DC, component) < 0:
            return False
    if pattern >> 4 == 2:
        for component in range(1, 3):
            for k in range(4):
                x, y = 2 * at.x + (k & 1), 2 * at.y + (k >> 1)
                if _block(r, picture, h, at, CHROMA_AC, component, x, y) < 0:
                    return False
    return True


@inner
def _block(r, picture, h, at, category, plane, x, y):
    """Read one block: its number of coefficients, -1 where broken.

    (x, y): the block in its plane's grid of 4x4 blocks, where the number is kept.
    """
    side = 3 if plane == 0 else 1
    is_left, is_up = x & side > 0 or at.left, y & side > 0 or at.up
    a = np.int64(picture.count_3RC[plane, y, x - 1]) if is_left else np.int64(0)
    b = np.int64(picture.count_3RC[plane, y - 1, x]) if is_up else np.int64(0)
    if h.cabac:
        absent = picture.macro_MF[at.mb, FLAGS] & INTRA
        context = (a > 0 if is_left else absent) + 2 * (b > 0 if is_up else absent)
        if not decide(r, 85 + 4 * category + context):
            return np.int64(0)
        n = read_block_cabac(r, category)
    else:
        near = (a + b + 1) >> 1 if is_left and is_up else a + b
        n = read_block_cavlc(r, category, 0 if near < 2 else 1 if near < 4 else 2 if near < 8 else 3)
    if category != LUMA_DC and n > 0:
        picture.count_3RC[plane, y, x] = n
    return n


@inner
def _dc_block(r, picture, h, at, category, component):
    """Read a DC block, whose coded_block_flag has contexts of its own."""
    if not h.cabac:
        if category == CHROMA_DC:
            return read_block_cavlc(r, category, CHROMA_TABLE)
        return _block(r, picture, h, at, category, LUMA, 4 * at.x, 4 * at.y)
    absent = picture.macro_MF[at.mb, FLAGS] & INTRA
    a = picture.macro_MF[at.mb - 1, DC] >> component & 1 if at.left else absent
    b = picture.macro_MF[at.above, DC] >> component & 1 if at.up else absent
    if not decide(r, 85 + 4 * category + a + 2 * b):
        return np.int64(0)
    picture.macro_MF[at.mb, DC] |= 1 << component
    return read_block_cabac(r, category)
