"""From coefficients to the residual's absolute values: inverse transforms of H.264 luma. Compiled.

Source: ITU-T H.264, 8.5.10 (Intra16x16 DC), 8.5.12 (4x4), 8.5.13 (8x8), 8.5.15 (bypass).
"""

from __future__ import annotations

from ov_model.codec.h264.entropy import inner


@inner
def scale_4(level, scale, qp):
    """A 4x4 coefficient, scaled (8-336, 8-337)."""
    if qp >= 24:
        return (level * scale) << (qp // 6 - 4)
    return (level * scale + (1 << (3 - qp // 6))) >> (4 - qp // 6)


@inner
def scale_8(level, scale, qp):
    """An 8x8 coefficient or a luma DC one, scaled (8-356, 8-357; 8-328, 8-329)."""
    if qp >= 36:
        return (level * scale) << (qp // 6 - 6)
    return (level * scale + (1 << (5 - qp // 6))) >> (6 - qp // 6)


@inner
def hadamard_4(c):
    """The 4x4 matrix of luma DC levels, transformed in place (int64 [16])."""
    for step, stride in ((4, 1), (1, 4)):
        for i in range(4):
            at = i * step
            a, b = c[at] + c[at + stride], c[at] - c[at + stride]
            d, e = c[at + 2 * stride] + c[at + 3 * stride], c[at + 2 * stride] - c[at + 3 * stride]
            c[at], c[at + stride], c[at + 2 * stride], c[at + 3 * stride] = a + d, a - d, b - e, b + e


@inner
def _write(residual_HW, y, x, value, shift):
    if shift:
        value = (
            (abs(value) + (1 << (shift - 1))) >> shift if value > 0 else -((abs(value) + (1 << (shift - 1))) >> shift)
        )
    residual_HW[y, x] = min(value, 127) if value > 0 else min(-value, 128)


@inner
def add_4(residual_HW, top, left, c, shift, plain):
    """Write |residual| of a 4x4 block from scaled coefficients (int64 [16], zeroed); plain: they are the residual."""
    if not plain:
        for step, stride in ((4, 1), (1, 4)):
            for i in range(4):
                at = i * step
                c0, c1, c2, c3 = c[at], c[at + stride], c[at + 2 * stride], c[at + 3 * stride]
                e, f = c0 + c2, c0 - c2
                g, h = (c1 >> 1) - c3, c1 + (c3 >> 1)
                c[at], c[at + stride], c[at + 2 * stride], c[at + 3 * stride] = e + h, f + g, f - g, e - h
    for i in range(16):
        value = c[i] if plain else (c[i] + 32) >> 6
        _write(residual_HW, top + (i >> 2), left + (i & 3), value, shift)
        c[i] = 0


@inner
def add_8(residual_HW, top, left, c, shift, plain):
    """Write |residual| of an 8x8 block from scaled coefficients (int64 [64], zeroed); plain: they are the residual."""
    if not plain:
        for step, stride in ((8, 1), (1, 8)):
            for i in range(8):
                at = i * step
                c0, c1, c2, c3 = c[at], c[at + stride], c[at + 2 * stride], c[at + 3 * stride]
                at4 = at + 4 * stride
                c4, c5, c6, c7 = c[at4], c[at4 + stride], c[at4 + 2 * stride], c[at4 + 3 * stride]
                a0, a2 = c0 + c4, c0 - c4
                a4, a6 = (c2 >> 1) - c6, c2 + (c6 >> 1)
                b0, b2, b4, b6 = a0 + a6, a2 + a4, a2 - a4, a0 - a6
                a1 = -c3 + c5 - c7 - (c7 >> 1)
                a3 = c1 + c7 - c3 - (c3 >> 1)
                a5 = -c1 + c7 + c5 + (c5 >> 1)
                a7 = c3 + c5 + c1 + (c1 >> 1)
                b1, b7 = a1 + (a7 >> 2), a7 - (a1 >> 2)
                b3, b5 = a3 + (a5 >> 2), (a3 >> 2) - a5
                c[at], c[at + stride], c[at + 2 * stride], c[at + 3 * stride] = b0 + b7, b2 + b5, b4 + b3, b6 + b1
                c[at4], c[at4 + stride], c[at4 + 2 * stride], c[at4 + 3 * stride] = b6 - b1, b4 - b3, b2 - b5, b0 - b7
    for i in range(64):
        value = c[i] if plain else (c[i] + 32) >> 6
        _write(residual_HW, top + (i >> 3), left + (i & 7), value, shift)
        c[i] = 0
