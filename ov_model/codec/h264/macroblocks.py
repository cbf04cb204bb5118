"""Slice data of H.264: macroblock by macroblock, for the residual of luma alone. Compiled.

Nothing is predicted or reconstructed: what is kept of each macroblock is what parsing its neighbors needs. Frames of
4:2:0 or monochrome, 8 bits or more; shapes: M macroblocks · R, C 4x4 blocks · H, W pixels of whole macroblocks.
Source: ITU-T H.264, 7.3.4, 7.3.5 (syntax), 9.3.3.1 (contexts), 9.2.1 (nC), tables 7-11 to 7-18.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.h264 import tables
from ov_model.codec.h264.entropy import (
    CHROMA_AC,
    CHROMA_DC,
    END,
    LUMA_4,
    LUMA_8,
    LUMA_AC,
    LUMA_DC,
    POSITION,
    SPARE,
    bypass,
    decide,
    escape,
    golomb,
    inner,
    outer,
    read_block_cabac,
    read_block_cavlc,
    signed_golomb,
    start_arithmetic,
    take,
    terminate,
)
from ov_model.codec.h264.headers import B_SLICE, I_SLICE, P_SLICE
from ov_model.codec.h264.transform import add_4, add_8, hadamard_4, scale_4, scale_8

# Columns of Picture.macro_MF and of its motion_2RC3.
SLICE, FLAGS, PATTERN, DC, CHROMA_MODE, QP = range(6)
REF = 2
# Plane 0, and the coeff_token table of chroma DC (NumPy's integers, as the categories are).
LUMA, CHROMA_TABLE = np.int64(0), np.int64(4)
# Flags of a macroblock.
INTRA, NXN, WHOLE, PCM, SKIPPED, DIRECT, EIGHT = 1, 2, 4, 8, 16, 32, 64
_ZIGZAG_4, _ZIGZAG_8 = tables.ZIGZAG_4, tables.ZIGZAG_8
_RASTER = tables.BLOCK_RASTER
_PATTERNS, _PATTERNS_GRAY = tables.PATTERNS, tables.PATTERNS_GRAY
# Lists used (1: list 0, 2: list 1, 3: both) by the two halves of B macroblocks of types 4..21, a row for two types.
_HALVES = np.array([[1, 1], [2, 2], [1, 2], [2, 1], [1, 3], [2, 3], [3, 1], [3, 2], [3, 3]], np.int64)
# Lists used and shape (0: 8x8, 1: 8x4, 2: 4x8, 3: 4x4) of B sub-macroblocks; type 0 is direct.
_SUB_LISTS = np.array([0, 1, 2, 3, 1, 1, 2, 2, 3, 3, 1, 2, 3], np.int64)
_SUB_SHAPES = np.array([3, 0, 0, 0, 1, 2, 1, 2, 1, 2, 3, 3, 3], np.int64)
_MVD_KEPT = 64
_MAX_REF = 32


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


class Place(NamedTuple):
    """Where a macroblock is, and whether its left and upper neighbors can be referred to."""

    mb: int
    x: int
    y: int
    left: bool
    up: bool
    above: int


@outer
def read_slice(r, picture, h, work):
    """Read one slice's macroblocks into the picture: how many, or -1 minus how many where the data are broken."""
    width = picture.residual_HW.shape[1] // 16
    total = picture.macro_MF.shape[0]
    mb = h.first_mb
    if h.cabac:
        start_arithmetic(r, (r.state[POSITION] + 7) >> 3)
    coefficients, dc, memory = work[:64], work[64:80], work[80:82]
    memory[0] = h.qp
    skip_run = np.int64(-1)
    while mb < total:
        x, y = mb % width, mb // width
        if picture.macro_MF[mb, SLICE] >= 0:
            break
        left = x > 0 and picture.macro_MF[mb - 1, SLICE] == h.number
        up = y > 0 and picture.macro_MF[mb - width, SLICE] == h.number
        at = Place(mb, x, y, left, up, mb - width)
        picture.macro_MF[mb, SLICE] = h.number
        skipped = False
        if h.kind != I_SLICE:
            if h.cabac:
                context = 11 if h.kind == P_SLICE else 24
                context += left and not picture.macro_MF[mb - 1, FLAGS] & SKIPPED
                context += up and not picture.macro_MF[mb - width, FLAGS] & SKIPPED
                skipped = decide(r, context) == 1
            else:
                if skip_run < 0:
                    skip_run = golomb(r)
                skipped = skip_run > 0
                skip_run -= 1
        if skipped:
            picture.macro_MF[mb, FLAGS] = SKIPPED | (DIRECT if h.kind == B_SLICE else 0)
            memory[1] = 0
        elif not _macroblock(r, picture, h, at, memory, coefficients, dc):
            break
        picture.macro_MF[mb, QP] = memory[0]
        mb += 1
        if h.cabac:
            if terminate(r):
                # x264 signs its slices with a stray bit, so what is left is a few bits or none.
                left_over = r.state[END] + 1 - (8 * r.state[POSITION] - r.state[SPARE])
                if left_over < 0 or left_over > 8:
                    break
                return mb - h.first_mb
            if r.state[POSITION] > r.data.size + 8:
                break
        elif skip_run <= 0 and r.state[POSITION] >= r.state[END]:
            if r.state[POSITION] > r.state[END]:
                break
            return mb - h.first_mb
    return h.first_mb - mb - 1


@inner
def _macroblock(r, picture, h, at, memory, coefficients, dc):
    """macroblock_layer (7.3.5); False where the data cannot be right. memory: QP, whether the last one changed it."""
    mb_type, intra = _type(r, picture, h, at)
    flags = 0
    if intra:
        if mb_type > 25:
            return False
        flags = INTRA | (NXN if mb_type == 0 else PCM if mb_type == 25 else WHOLE)
    elif h.kind == B_SLICE and mb_type == 0:
        flags = DIRECT
    if flags & PCM:
        return _samples(r, picture, h, at, flags, memory)
    divided = not intra and (mb_type == 22 if h.kind == B_SLICE else mb_type in (3, 4))
    small = False
    if intra:
        if flags & NXN and h.transform_8x8 and _eight_flag(r, picture, h, at):
            flags |= EIGHT
        if flags & NXN:
            _skip_modes(r, h, 4 if flags & EIGHT else 16)
        if not h.gray:
            picture.macro_MF[at.mb, CHROMA_MODE] = _chroma_mode(r, picture, h, at)
    elif divided:
        small = _divided_motion(r, picture, h, at, mb_type)
    elif not flags & DIRECT:
        if not _motion(r, picture, h, at, mb_type):
            return False
    else:
        small = not h.direct_8x8

    if flags & WHOLE:
        pattern = (15 if mb_type >= 13 else 0) | ((mb_type - 1) // 4 % 3) << 4
    elif h.cabac:
        pattern = _pattern_cabac(r, picture, h, at)
    else:
        code = golomb(r)
        row = 0 if intra else 1
        if code >= (16 if h.gray else 48):
            return False
        pattern = _PATTERNS_GRAY[row, code] if h.gray else _PATTERNS[row, code]
    if pattern & 15 and h.transform_8x8 and not intra and not small and _eight_flag(r, picture, h, at):
        flags |= EIGHT
    picture.macro_MF[at.mb, PATTERN] = pattern
    picture.macro_MF[at.mb, FLAGS] = flags
    if pattern == 0 and not flags & WHOLE:
        memory[1] = 0
        return True
    change = _qp_change(r, h, memory)
    memory[1] = change != 0
    offset = 6 * (h.depth - 8)
    memory[0] = (memory[0] + change + 52 + 2 * offset) % (52 + offset) - offset
    if not _luma(r, picture, h, at, flags, pattern, memory[0] + offset, coefficients, dc):
        return False
    return h.gray or _chroma(r, picture, h, at, flags, pattern)


@inner
def _type(r, picture, h, at):
    """mb_type and whether it is one of the intra types (then 0..25)."""
    if not h.cabac:
        code = golomb(r)
        inter = 5 if h.kind == P_SLICE else 23 if h.kind == B_SLICE else 0
        return (code, False) if code < inter else (code - inter, True)
    if h.kind == I_SLICE:
        context = 3
        context += at.left and not picture.macro_MF[at.mb - 1, FLAGS] & NXN
        context += at.up and not picture.macro_MF[at.above, FLAGS] & NXN
        if not decide(r, context):
            return 0, True
        return _intra_type(r, 5, 1), True
    if h.kind == P_SLICE:
        if decide(r, 14):
            return (_intra_type(r, 17, 0) if decide(r, 17) else 0), True
        if decide(r, 15):
            return 2 - decide(r, 17), False
        return 3 * decide(r, 16), False
    context = 27
    context += at.left and not picture.macro_MF[at.mb - 1, FLAGS] & DIRECT
    context += at.up and not picture.macro_MF[at.above, FLAGS] & DIRECT
    if not decide(r, context):
        return 0, False
    if not decide(r, 30):
        return 1 + decide(r, 32), False
    bits = decide(r, 31) << 3
    bits |= decide(r, 32) << 2
    bits |= decide(r, 32) << 1
    bits |= decide(r, 32)
    if bits < 8:
        return bits + 3, False
    if bits == 13:
        return (_intra_type(r, 32, 0) if decide(r, 32) else 0), True
    if bits == 14:
        return 11, False
    if bits == 15:
        return 22, False
    return (bits << 1 | decide(r, 32)) - 4, False


@inner
def _intra_type(r, base, apart):
    """The rest of an intra mb_type after its first bin: 1..25. apart: 1 in I slices, whose bins share no contexts."""
    if terminate(r):
        return 25
    mb_type = 1 + 12 * decide(r, base + 1)
    if decide(r, base + 2):
        mb_type += 4 + 4 * decide(r, base + 2 + apart)
    mb_type += 2 * decide(r, base + 3 + apart)
    mb_type += decide(r, base + 3 + 2 * apart)
    return mb_type


@inner
def _eight_flag(r, picture, h, at):
    if not h.cabac:
        return take(r, 1) == 1
    context = 399
    context += at.left and picture.macro_MF[at.mb - 1, FLAGS] & EIGHT != 0
    context += at.up and picture.macro_MF[at.above, FLAGS] & EIGHT != 0
    return decide(r, context) == 1


@inner
def _skip_modes(r, h, count):
    for _ in range(count):
        if h.cabac:
            if not decide(r, 68):
                for _ in range(3):
                    decide(r, 69)
        elif not take(r, 1):
            take(r, 3)


@inner
def _chroma_mode(r, picture, h, at):
    if not h.cabac:
        return golomb(r)
    context = 64
    context += at.left and picture.macro_MF[at.mb - 1, CHROMA_MODE] != 0
    context += at.up and picture.macro_MF[at.above, CHROMA_MODE] != 0
    mode = 0
    while mode < 3 and decide(r, context if mode == 0 else 67):
        mode += 1
    return mode


@inner
def _samples(r, picture, h, at, flags, memory):
    """I_PCM: samples instead of a residual."""
    s = r.state
    start = (8 * s[POSITION] - s[SPARE] if h.cabac else s[POSITION]) + 7 >> 3
    after = start + ((256 if h.gray else 384) * h.depth + 7 >> 3)
    if after > r.data.size:
        return False
    if h.cabac:
        start_arithmetic(r, after)
    else:
        s[POSITION] = 8 * after
    memory[1] = 0
    picture.macro_MF[at.mb, FLAGS] = flags
    picture.macro_MF[at.mb, PATTERN] = 15 if h.gray else 47
    picture.macro_MF[at.mb, DC] = 7
    picture.count_3RC[0, 4 * at.y : 4 * at.y + 4, 4 * at.x : 4 * at.x + 4] = 16
    picture.count_3RC[1:, 2 * at.y : 2 * at.y + 2, 2 * at.x : 2 * at.x + 2] = 16
    return True


@inner
def _motion(r, picture, h, at, mb_type):
    """mb_pred of an inter macroblock of one or two parts."""
    lists = np.int64(1 << 2 | 1)
    shape = mb_type
    if h.kind == B_SLICE:
        if mb_type > 21:
            return False
        if mb_type <= 3:
            lists, shape = mb_type << 2 | mb_type, 0
        else:
            row = (mb_type - 4) // 2
            lists, shape = _HALVES[row, 1] << 2 | _HALVES[row, 0], 1 + mb_type % 2
    parts = 1 if shape == 0 else 2
    wide, high = (2 if shape == 2 else 4), (2 if shape == 1 else 4)
    for k in range(2):
        for part in range(parts):
            if lists >> (2 * part) & 1 << k:
                x0, y0 = (2 * part if shape == 2 else 0), (2 * part if shape == 1 else 0)
                _reference(r, picture, h, at, k, x0, y0, wide, high)
    for k in range(2):
        for part in range(parts):
            if lists >> (2 * part) & 1 << k:
                x0, y0 = (2 * part if shape == 2 else 0), (2 * part if shape == 1 else 0)
                _difference(r, picture, h, at, k, x0, y0, wide, high)
    return True


@inner
def _divided_motion(r, picture, h, at, mb_type):
    """sub_mb_pred; whether a part is smaller than 8x8."""
    has_references = h.kind == B_SLICE or mb_type == 3
    small = False
    packed = np.int64(0)
    for quarter in range(4):
        if h.kind == P_SLICE:
            shape, lists = _sub_type_p(r, h), np.int64(1)
            small |= shape > 0
        else:
            sub = min(_sub_type_b(r, h), 12)
            shape, lists = _SUB_SHAPES[sub], _SUB_LISTS[sub]
            small |= shape > 0 if sub else not h.direct_8x8
        packed |= (shape << 2 | lists) << (4 * quarter)
    for k in range(2):
        for quarter in range(4):
            if packed >> (4 * quarter) & 1 << k and has_references:
                _reference(r, picture, h, at, k, 2 * (quarter & 1), quarter & 2, 2, 2)
    for k in range(2):
        for quarter in range(4):
            if packed >> (4 * quarter) & 1 << k:
                shape = packed >> (4 * quarter + 2) & 3
                wide, high = (1 if shape & 2 else 2), (1 if shape & 1 else 2)
                for y0 in range(quarter & 2, (quarter & 2) + 2, high):
                    for x0 in range(2 * (quarter & 1), 2 * (quarter & 1) + 2, wide):
                        _difference(r, picture, h, at, k, x0, y0, wide, high)
    return small


@inner
def _sub_type_p(r, h):
    if not h.cabac:
        return min(golomb(r), 3)
    if decide(r, 21):
        return np.int64(0)
    if not decide(r, 22):
        return np.int64(1)
    return np.int64(2) if decide(r, 23) else np.int64(3)


@inner
def _sub_type_b(r, h):
    if not h.cabac:
        return golomb(r)
    if not decide(r, 36):
        return np.int64(0)
    if not decide(r, 37):
        return 1 + decide(r, 39)
    sub = np.int64(3)
    if decide(r, 38):
        if decide(r, 39):
            return 11 + decide(r, 39)
        sub += 4
    sub += 2 * decide(r, 39)
    return sub + decide(r, 39)


@inner
def _reference(r, picture, h, at, k, x0, y0, wide, high):
    """ref_idx of one part; what later contexts need is whether it is above 0."""
    active = h.refs_0 if k == 0 else h.refs_1
    if active <= 1:
        return
    x, y = 4 * at.x + x0, 4 * at.y + y0
    index = np.int64(0)
    if not h.cabac:
        index = 1 - take(r, 1) if active == 2 else golomb(r)
    else:
        context = 0
        if x0 > 0 or at.left:
            context += picture.motion_2RC3[k, y, x - 1, REF]
        if y0 > 0 or at.up:
            context += 2 * picture.motion_2RC3[k, y - 1, x, REF]
        while index < _MAX_REF and decide(r, 54 + context):
            index += 1
            context = (context >> 2) + 4
    if index > 0:
        for j in range(y, y + high):
            for i in range(x, x + wide):
                picture.motion_2RC3[k, j, i, REF] = 1


@inner
def _difference(r, picture, h, at, k, x0, y0, wide, high):
    """mvd of one part."""
    if not h.cabac:
        golomb(r)
        golomb(r)
        return
    x, y = 4 * at.x + x0, 4 * at.y + y0
    for axis in range(2):
        near = 0
        if x0 > 0 or at.left:
            near += picture.motion_2RC3[k, y, x - 1, axis]
        if y0 > 0 or at.up:
            near += picture.motion_2RC3[k, y - 1, x, axis]
        base = 40 if axis == 0 else 47
        if not decide(r, base + (near > 2) + (near > 32)):
            continue
        size, context = np.int64(1), 3
        while size < 9 and decide(r, base + context):
            if context < 6:
                context += 1
            size += 1
        if size >= 9:
            size += escape(r, 3)
        bypass(r)
        for j in range(y, y + high):
            for i in range(x, x + wide):
                picture.motion_2RC3[k, j, i, axis] = min(size, _MVD_KEPT)


@inner
def _pattern_cabac(r, picture, h, at):
    """coded_block_pattern (9.3.3.1.1.4); a macroblock that cannot be referred to counts as coded in luma."""
    left = np.int64(picture.macro_MF[at.mb - 1, PATTERN]) if at.left else 15
    up = np.int64(picture.macro_MF[at.above, PATTERN]) if at.up else 15
    pattern = np.int64(0)
    for quarter in range(4):
        a = pattern >> (quarter - 1) & 1 if quarter & 1 else left >> (quarter + 1) & 1
        b = pattern >> (quarter - 2) & 1 if quarter & 2 else up >> (quarter + 2) & 1
        pattern |= decide(r, 73 + (1 - a) + 2 * (1 - b)) << quarter
    if h.gray:
        return pattern
    a, b = left >> 4, up >> 4
    if decide(r, 77 + (a > 0) + 2 * (b > 0)):
        pattern |= 16 << decide(r, 81 + (a == 2) + 2 * (b == 2))
    return pattern


@inner
def _qp_change(r, h, memory):
    if not h.cabac:
        return signed_golomb(r)
    context, steps = memory[1], np.int64(0)
    while steps < 128 and decide(r, 60 + context):
        context = 2 + (context >> 1)
        steps += 1
    return (steps + 1) >> 1 if steps & 1 else -(steps >> 1)


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


@inner
def _luma(r, picture, h, at, flags, pattern, qp, coefficients, dc):
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
def _chroma(r, picture, h, at, flags, pattern):
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
