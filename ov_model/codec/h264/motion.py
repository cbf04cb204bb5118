"""Motion of H.264 macroblocks, read past: what is kept is what the contexts of later ones need. Compiled.

Source: ITU-T H.264, 7.3.5.1, 7.3.5.2 (syntax), 9.3.3.1.1.6, 9.3.3.1.1.7 (contexts), tables 7-13, 7-14, 7-17, 7-18.
"""

from __future__ import annotations

import numpy as np

from ov_model.codec.h264.entropy import bypass, decide, escape, golomb, inner, take
from ov_model.codec.h264.headers import B_SLICE, P_SLICE
from ov_model.codec.h264.memory import REF

# Lists used (1: list 0, 2: list 1, 3: both) by the two halves of B macroblocks of types 4..21, a row for two types.
_HALVES = np.array([[1, 1], [2, 2], [1, 2], [2, 1], [1, 3], [2, 3], [3, 1], [3, 2], [3, 3]], np.int64)
# Lists used and shape (0: 8x8, 1: 8x4, 2: 4x8, 3: 4x4) of B sub-macroblocks; type 0 is direct.
_SUB_LISTS = np.array([0, 1, 2, 3, 1, 1, 2, 2, 3, 3, 1, 2, 3], np.int64)
_SUB_SHAPES = np.array([3, 0, 0, 0, 1, 2, 1, 2, 1, 2, 3, 3, 3], np.int64)
_MVD_KEPT = 64
_MAX_REF = 32


@inner
def read_motion(r, picture, h, at, mb_type):
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
def read_divided_motion(r, picture, h, at, mb_type):
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
