"""Entropy decoding of H.264 slice data: CABAC and CAVLC, down to blocks of coefficients. Compiled.

A `Reader` holds one slice's bits and what decoding them keeps; both codings fill its `places` (scan positions) and
`levels` of a block's non-zero coefficients. Source: ITU-T H.264, 9.1, 9.2 and 9.3.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numba
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.h264 import tables

# None of these functions makes an array, so they go without reference counting (`_nrt`), which would cost more than the
# decoding itself. `inner`: for those called by compiled code alone.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
outer = cast(Any, numba.njit)(**_OPTIONS)
inner = cast(Any, numba.njit)(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)

RANGE, VALUE, SPARE, POSITION, END, CONTEXT_0 = range(6)
PADDING = 16
# Categories of coefficient blocks (table 9-42) and their scan positions. numba compiles a function anew for each
# literal argument, but once for all of NumPy's integers.
LUMA_DC, LUMA_AC, LUMA_4, CHROMA_DC, CHROMA_AC, LUMA_8 = np.arange(6)
_COUNTS = np.array([16, 15, 16, 4, 15, 64], np.int64)

_RANGE_LPS, _NEXT_MPS, _NEXT_LPS = tables.RANGE_LPS, tables.NEXT_MPS, tables.NEXT_LPS
# Bits by which a range below 256 is shifted up, by range >> 3.
_SHIFT = np.array([6] + [8 - (i << 3).bit_length() + 1 for i in range(1, 32)], np.int64)
_SIGNIFICANT_8, _LAST_8 = tables.SIGNIFICANT_8, tables.LAST_8
_SIGNIFICANT = np.array([105, 120, 134, 149, 152, 402], np.int64)
_LAST = np.array([166, 181, 195, 210, 213, 417], np.int64)
_LEVEL = np.array([227, 237, 247, 257, 266, 426], np.int64)
_MAX_ESCAPE = 24


class Reader(NamedTuple):
    """One slice's data. state: RANGE, VALUE, SPARE bits and next byte of CABAC, or next bit (POSITION) of CAVLC."""

    data: NDArray[np.uint8]
    state: NDArray[np.int64]
    places: NDArray[np.int64]
    levels: NDArray[np.int64]
    tokens: NDArray[np.int16]
    zeros: NDArray[np.int16]
    runs: NDArray[np.int16]


def open_reader(payload: bytes, at: int) -> Reader:
    """A reader of a slice's payload whose data begins at bit `at`."""
    data = np.frombuffer(payload + bytes(PADDING), np.uint8)
    state = np.zeros(CONTEXT_0 + tables.CONTEXTS, np.int64)
    state[POSITION], state[END] = at, last_bit(payload)
    return Reader(data, state, np.zeros(64, np.int64), np.zeros(64, np.int64), *tables.code_tables())


def last_bit(payload: bytes) -> int:
    """Position of the stop bit: that of the last bit set."""
    stripped = payload.rstrip(b"\0")
    return 8 * len(stripped) - 1 - ((stripped[-1] & -stripped[-1]).bit_length() - 1) if stripped else 0


@inner
def start_arithmetic(r, byte):
    """Begin CABAC at a byte."""
    s = r.state
    s[RANGE] = 510
    s[VALUE] = 0
    s[SPARE] = -9
    s[POSITION] = byte
    _refill(s, r.data)


@inner
def _refill(s, data):
    at = min(s[POSITION], data.size - 4)
    four = (
        np.int64(data[at]) << 24 | np.int64(data[at + 1]) << 16 | np.int64(data[at + 2]) << 8 | np.int64(data[at + 3])
    )
    s[VALUE] = s[VALUE] << 32 | four
    s[SPARE] += 32
    s[POSITION] += 4


@inner
def decide(r, context):
    """One bin with a context (9.3.3.2.1)."""
    return _decide(r.state, r.data, np.int64(context))


@inner
def _decide(s, data, context):
    state = s[CONTEXT_0 + context]
    span = s[RANGE]
    less = _RANGE_LPS[(state >> 1) * 4 + ((span >> 6) & 3)]
    span -= less
    scaled = span << s[SPARE]
    if s[VALUE] < scaled:
        s[CONTEXT_0 + context] = _NEXT_MPS[state]
        one = state & 1
        if span < 256:
            span <<= 1
            s[SPARE] -= 1
    else:
        s[VALUE] -= scaled
        s[CONTEXT_0 + context] = _NEXT_LPS[state]
        one = state & 1 ^ 1
        shift = _SHIFT[less >> 3]
        span = less << shift
        s[SPARE] -= shift
    s[RANGE] = span
    if s[SPARE] < 8:
        _refill(s, data)
    return one


@inner
def bypass(r):
    """One bin of even odds (9.3.3.2.3)."""
    return _bypass(r.state, r.data)


@inner
def _bypass(s, data):
    s[SPARE] -= 1
    scaled = s[RANGE] << s[SPARE]
    one = np.int64(0)
    if s[VALUE] >= scaled:
        s[VALUE] -= scaled
        one = np.int64(1)
    if s[SPARE] < 8:
        _refill(s, data)
    return one


@inner
def terminate(r):
    """The bin before the end of a slice or PCM samples (9.3.3.2.2.3)."""
    s = r.state
    s[RANGE] -= 2
    if s[VALUE] >= s[RANGE] << s[SPARE]:
        return True
    if s[RANGE] < 256:
        s[RANGE] <<= 1
        s[SPARE] -= 1
        if s[SPARE] < 8:
            _refill(s, r.data)
    return False


@inner
def escape(r, k):
    """Suffix of an exponential Golomb binarization of order k (9.3.2.5)."""
    value = np.int64(0)
    while k < _MAX_ESCAPE and bypass(r):
        value += np.int64(1) << k
        k += 1
    while k > 0:
        k -= 1
        value += bypass(r) << k
    return value


@inner
def read_block_cabac(r, category):
    """Read a block whose coded_block_flag is 1: the number of its coefficients."""
    s, data, places, levels = r.state, r.data, r.places, r.levels
    last_place = _COUNTS[category] - 1
    n = 0
    ended = False
    for i in range(last_place):
        if category == LUMA_8:
            significant, last = _SIGNIFICANT_8[i], _LAST_8[i]
        elif category == CHROMA_DC:
            significant, last = min(i, 2), min(i, 2)
        else:
            significant, last = i, i
        if _decide(s, data, _SIGNIFICANT[category] + significant):
            places[n] = i
            n += 1
            if _decide(s, data, _LAST[category] + last):
                ended = True
                break
    if not ended:
        places[n] = last_place
        n += 1
    base = _LEVEL[category]
    ones, larger = 0, 0
    limit = 3 if category == CHROMA_DC else 4
    for k in range(n - 1, -1, -1):
        level = np.int64(1)
        if not _decide(s, data, base + (0 if larger else min(4, 1 + ones))):
            ones += 1
        else:
            level += 1
            context = base + 5 + min(limit, larger)
            while level < 15 and _decide(s, data, context):
                level += 1
            if level >= 15:
                level += escape(r, 0)
            larger += 1
        levels[k] = -level if _bypass(s, data) else level
    return n


@inner
def peek(r, count):
    """The next bits (up to 32), not consumed."""
    at = r.state[POSITION]
    byte = min(at >> 3, r.data.size - 5)
    window = np.int64(0)
    for i in range(5):
        window = window << 8 | np.int64(r.data[byte + i])
    return (window >> (40 - (at & 7) - count)) & ((np.int64(1) << count) - 1)


@inner
def take(r, count):
    """The next bits (up to 32)."""
    value = peek(r, count)
    r.state[POSITION] += count
    return value


@inner
def golomb(r):
    """ue(v)."""
    zeros = 0
    while zeros < 31 and take(r, 1) == 0:
        zeros += 1
    return (np.int64(1) << zeros) - 1 + take(r, zeros)


@inner
def signed_golomb(r):
    """se(v)."""
    code = golomb(r)
    return (code + 1) // 2 if code & 1 else -(code // 2)


@inner
def _symbol(r, entry):
    r.state[POSITION] += entry & 31
    return np.int64(entry >> 5)


@inner
def read_block_cavlc(r, category, table):
    """Read a block with a coeff_token table: the number of its coefficients, -1 where broken."""
    count = _COUNTS[category]
    token = _symbol(r, r.tokens[table, peek(r, 16)])
    total, ones = token >> 2, token & 3
    if total == 0:
        return np.int64(0)
    if total > count:
        return np.int64(-1)
    suffix = 1 if total > 10 and ones < 3 else 0
    for i in range(total):
        if i < ones:
            r.levels[i] = 1 - 2 * take(r, 1)
            continue
        prefix = 0
        while prefix < _MAX_ESCAPE and take(r, 1) == 0:
            prefix += 1
        code = np.int64(min(15, prefix)) << suffix
        size = suffix
        if prefix == 14 and suffix == 0:
            size = 4
        elif prefix >= 15:
            size = prefix - 3
        code += take(r, size)
        if prefix >= 15 and suffix == 0:
            code += 15
        if prefix >= 16:
            code += (np.int64(1) << (prefix - 3)) - 4096
        if i == ones and ones < 3:
            code += 2
        r.levels[i] = (-code - 1) >> 1 if code & 1 else (code + 2) >> 1
        if suffix == 0:
            suffix = 1
        if abs(r.levels[i]) > 3 << (suffix - 1) and suffix < 6:
            suffix += 1
    zeros = np.int64(0)
    if total < count:
        row = total + 14 if count == 4 else total - 1
        zeros = _symbol(r, r.zeros[row, peek(r, 9)])
    place = total + zeros - 1
    if place >= count:
        return np.int64(-1)
    for i in range(total):
        r.places[i] = place
        if zeros > 0 and i < total - 1:
            run = _symbol(r, r.runs[min(zeros, 7) - 1, peek(r, 11)])
            zeros -= run
            place -= run
        place -= 1
    return total if place >= -1 else np.int64(-1)
