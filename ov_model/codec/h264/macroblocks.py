"""Slice data of H.264: macroblock by macroblock, for the residual of luma alone. Compiled.

Nothing is predicted or reconstructed: what is kept of each macroblock is what parsing its neighbors needs. Frames of
4:2:0 or monochrome, 8 bits or more.
Source: ITU-T H.264, 7.3.4, 7.3.5 (syntax), 9.3.3.1 (contexts), tables 7-11, 7-13, 7-14.
"""

from __future__ import annotations

import numpy as np

from ov_model.codec.h264 import tables
from ov_model.codec.h264.entropy import (
    END,
    POSITION,
    SPARE,
    decide,
    golomb,
    inner,
    outer,
    signed_golomb,
    start_arithmetic,
    take,
    terminate,
)
from ov_model.codec.h264.headers import B_SLICE, I_SLICE, P_SLICE
from ov_model.codec.h264.memory import (
    CHROMA_MODE,
    DC,
    DIRECT,
    EIGHT,
    FLAGS,
    INTRA,
    NXN,
    PATTERN,
    PCM,
    QP,
    SKIPPED,
    SLICE,
    WHOLE,
    Place,
)
from ov_model.codec.h264.motion import read_divided_motion, read_motion
from ov_model.codec.h264.residual import read_chroma, read_luma

_PATTERNS, _PATTERNS_GRAY = tables.PATTERNS, tables.PATTERNS_GRAY


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
        small = read_divided_motion(r, picture, h, at, mb_type)
    elif not flags & DIRECT:
        if not read_motion(r, picture, h, at, mb_type):
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
    if not read_luma(r, picture, h, at, flags, pattern, memory[0] + offset, coefficients, dc):
        return False
    return h.gray or read_chroma(r, picture, h, at, flags, pattern)


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
