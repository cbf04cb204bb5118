"""From one frame's motion and residual maps to one score per patch: normalize, fuse, map to the square, sum.

Arrays in, arrays out. Shapes: H, W frame in pixels · h, w its 4x4-pixel vector grid · G patches a side of the square.
Arithmetic: the published one (float32, order of operations kept), with one pass over the pixels instead of five.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ov_model.errors import UsageError
from ov_model.geometry import Geometry

FUSE_MODES = ("weighted", "max", "sum", "geomean")
COMPENSATIONS = ("median", "mean", "none")
NORMALIZATIONS = ("frame", "clip")
_RESIDUAL_FLOOR = 1.0
_MOTION_FLOOR = 1e-6


@dataclass(frozen=True)
class EnergyOptions:
    """How motion and residual become one energy. Percentiles in 0..100, weights relative.

    Raises:
        UsageError: an unknown mode, a percentile outside 0..100, or weights that leave nothing.
    """

    mv_unit_div: float = 4.0
    mv_pct: float = 95.0
    res_pct: float = 95.0
    fuse_mode: str = "weighted"
    w_mv: float = 1.0
    w_res: float = 1.0
    mv_compensate: str = "median"
    res_use_grad: bool = False
    normalize: str = "frame"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("fuse_mode", FUSE_MODES),
            ("mv_compensate", COMPENSATIONS),
            ("normalize", NORMALIZATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name in ("mv_pct", "res_pct"):
            if not 0 <= getattr(self, name) <= 100:
                raise UsageError(f"{name} is {getattr(self, name)}; a percentile lies between 0 and 100")
        for name in ("mv_unit_div", "w_mv", "w_res"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be a finite number")
        if self.mv_unit_div <= 0:
            raise UsageError(f"mv_unit_div is {self.mv_unit_div}; it must be positive")
        if self.w_mv < 0 or self.w_res < 0 or self.w_mv + self.w_res == 0:
            raise UsageError(f"w_mv {self.w_mv} and w_res {self.w_res} must be >= 0 and not both 0")


@dataclass(frozen=True)
class SquareMap:
    """Where a frame's content lies in the square, in pixels; the `pad_info` of the meta file."""

    scale: float
    Hn: int
    Wn: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    out_size: int
    H0: int
    W0: int

    @classmethod
    def fit(cls, height: int, width: int, square_size: int) -> SquareMap:
        """Scale the longer side to the square and center the content (display size, after rotation)."""
        scale = square_size / max(height, width)
        content_h = max(1, round(height * scale))
        content_w = max(1, round(width * scale))
        top, left = (square_size - content_h) // 2, (square_size - content_w) // 2
        return cls(
            scale=scale,
            Hn=content_h,
            Wn=content_w,
            pad_top=top,
            pad_left=left,
            pad_bottom=square_size - content_h - top,
            pad_right=square_size - content_w - left,
            out_size=square_size,
            H0=height,
            W0=width,
        )

    def as_dict(self) -> dict[str, float | int]:
        """The fields in the order of the published meta file."""
        return asdict(self)

    def valid_range(self, patch_size: int) -> tuple[int, int, int, int]:
        """Grid rows and columns (h_start, h_end, w_start, w_end) of the patches wholly inside the content."""
        p = patch_size
        h_start, h_end = -(-self.pad_top // p), (self.pad_top + self.Hn) // p
        w_start, w_end = -(-self.pad_left // p), (self.pad_left + self.Wn) // p
        return h_start, max(h_start, h_end), w_start, max(w_start, w_end)


def valid_mask(square: SquareMap, geometry: Geometry) -> NDArray[np.bool_]:
    """bool [G, G]: True where a patch lies wholly inside the content box."""
    mask = np.zeros((geometry.grid, geometry.grid), dtype=bool)
    h_start, h_end, w_start, w_end = square.valid_range(geometry.patch_size)
    mask[h_start:h_end, w_start:w_end] = True
    return mask


def motion_magnitude(motion_hw2: NDArray[np.int16], options: EnergyOptions) -> NDArray[np.float32]:
    """float32 [h, w]: vector length after the camera's share (median or mean per axis) is taken off."""
    vectors = motion_hw2.astype(np.float32) / np.float32(options.mv_unit_div)
    vx, vy = vectors[:, :, 0], vectors[:, :, 1]
    if options.mv_compensate == "median":
        vx, vy = vx - np.median(vx), vy - np.median(vy)
    elif options.mv_compensate == "mean":
        vx, vy = vx - np.float32(np.mean(vx)), vy - np.float32(np.mean(vy))
    return np.sqrt(vx * vx + vy * vy).astype(np.float32)


def residual_gradient(residual_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W]: half the sum of the central differences of the residual (`res_use_grad`), edges replicated."""
    padded = np.pad(residual_HW.astype(np.int16), 1, mode="edge")
    across = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2])
    down = np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1])
    return ((across + down) // 2).clip(0, 255).astype(np.uint8)


def motion_scale(magnitude_hw: NDArray[np.float32], options: EnergyOptions) -> float:
    """The percentile that maps to 1, never below its floor."""
    return max(float(np.percentile(magnitude_hw, options.mv_pct)), _MOTION_FLOOR)


def residual_histogram(residual_HW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [256]: how many pixels have each residual."""
    return _histogram(residual_HW)


def residual_scale(histogram: NDArray[np.int64], options: EnergyOptions) -> float:
    """The percentile of a histogram (linear interpolation, as np.percentile), never below its floor."""
    total = int(histogram.sum())
    if total == 0:
        return _RESIDUAL_FLOOR
    rank = (total - 1) * options.res_pct / 100.0
    below = int(rank)
    cumulative = np.cumsum(histogram)
    low = int(np.searchsorted(cumulative, below, side="right"))
    high = int(np.searchsorted(cumulative, min(below + 1, total - 1), side="right"))
    return max(low + (high - low) * (rank - below), _RESIDUAL_FLOOR)


def patch_scores(
    magnitude_hw: NDArray[np.float32] | None,
    residual_HW: NDArray[np.uint8] | None,
    motion_at_1: float,
    residual_at_1: float,
    square: SquareMap,
    geometry: Geometry,
    options: EnergyOptions,
    *,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """float32 [G, G]: the fused energy summed over each patch of the square; 0 outside the content.

    Args:
        magnitude_hw: motion magnitude on the 4x4-pixel grid, or None where the frame has no vectors.
        residual_HW: absolute residual, or None where the signal has none (motion alone then decides).
        motion_at_1, residual_at_1: the values that normalize to 1.
        shape: (H, W) of the frame in display orientation.
    """
    height, width = shape
    if magnitude_hw is None:
        normal = np.zeros((1, 1), np.float32)
    else:
        normal = np.clip(magnitude_hw / np.float32(motion_at_1), 0.0, 1.0).astype(np.float32)
    if residual_HW is None:
        residual = np.zeros((1, 1), np.uint8)
        mode, w_mv, w_res = FUSE_MODES.index("weighted"), 1.0, 0.0
    else:
        residual = np.ascontiguousarray(residual_HW)
        mode, w_mv, w_res = FUSE_MODES.index(options.fuse_mode), options.w_mv, options.w_res
    table = np.clip(np.arange(256, dtype=np.float32) / np.float32(residual_at_1), 0.0, 1.0)
    y0, fy = _taps(height, square.Hn)
    x0, fx = _taps(width, square.Wn)
    return _fused_patch_sums(
        np.ascontiguousarray(normal), residual, table.astype(np.float32), mode, np.float32(w_mv), np.float32(w_res),
        y0, fy, x0, fx, height, width, square.pad_top, square.pad_left, geometry.patch_size, geometry.grid,
    )  # fmt: skip


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First source index and the weight of the next one for each target pixel (OpenCV's INTER_LINEAR)."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    weight = (at - first).astype(np.float32)
    weight[first < 0] = 0.0
    weight[first >= source - 1] = 0.0
    return first.clip(0, source - 1), weight


@numba.njit(cache=True, nogil=True)
def _histogram(residual_HW):
    """Four tables in turn, so that runs of one value do not wait for each other."""
    counts = np.zeros((4, 256), np.int64)
    flat = residual_HW.ravel()
    whole = flat.size // 4 * 4
    for i in range(0, whole, 4):
        counts[0, flat[i]] += 1
        counts[1, flat[i + 1]] += 1
        counts[2, flat[i + 2]] += 1
        counts[3, flat[i + 3]] += 1
    for i in range(whole, flat.size):
        counts[0, flat[i]] += 1
    return counts.sum(axis=0)


@numba.njit(cache=True, nogil=True)
def _fused_row(out, y, normal, residual, table, mode, w_mv, w_res):
    row = min(y >> 2, normal.shape[0] - 1)
    last = normal.shape[1] - 1
    line = residual[min(y, residual.shape[0] - 1)]
    edge = line.size - 1
    one, zero = np.float32(1.0), np.float32(0.0)
    both = w_mv + w_res
    for x in range(out.size):
        mv = normal[row, min(x >> 2, last)]
        res = table[line[min(x, edge)]]
        if mode == 0:
            value = (w_mv * mv + w_res * res) / both
        elif mode == 1:
            value = max(mv, res)
        elif mode == 2:
            value = mv + res
        else:
            value = np.sqrt(mv * res)
        out[x] = min(max(value, zero), one)


@numba.njit(cache=True, nogil=True)
def _fused_patch_sums(
    normal, residual, table, mode, w_mv, w_res, y0, fy, x0, fx, height, width, top, left, patch, grid
):
    sums = np.zeros((grid, grid), np.float64)
    upper, lower = np.empty(width, np.float32), np.empty(width, np.float32)
    upper_at, lower_at = -1, -1
    mixed = np.empty(width + 1, np.float32)
    one = np.float32(1.0)
    for j in range(y0.size):
        first = y0[j]
        second = min(first + 1, height - 1)
        if first == lower_at:
            upper, lower = lower, upper
            upper_at, lower_at = lower_at, upper_at
        if first != upper_at:
            _fused_row(upper, first, normal, residual, table, mode, w_mv, w_res)
            upper_at = first
        if second != lower_at:
            _fused_row(lower, second, normal, residual, table, mode, w_mv, w_res)
            lower_at = second
        below, above = fy[j], one - fy[j]
        for x in range(width):
            mixed[x] = upper[x] * above + lower[x] * below
        mixed[width] = mixed[width - 1]
        row = (top + j) // patch
        start = 0
        while start < x0.size:
            column = (left + start) // patch
            stop = min((column + 1) * patch - left, x0.size)
            total = 0.0
            for i in range(start, stop):
                total += mixed[x0[i]] * (one - fx[i]) + mixed[x0[i] + 1] * fx[i]
            sums[row, column] += total
            start = stop
    return sums.astype(np.float32)
