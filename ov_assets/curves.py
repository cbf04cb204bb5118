"""Curves as small pictures: the loss of a training run, and how the UI is shown a picture."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_RAW, _SMOOTH, _AXIS, _GRID, _TEXT = "#b7c9e2", "#1f4e8c", "#000000", "#dddddd", "#333333"
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 28, 12, 26
_LINES = 5


def draw_loss(metrics: Sequence[Mapping[str, Any]], title: str, width: int = 640, height: int = 320) -> bytes:
    """PNG of loss over steps: each logged loss in pale, their running mean in dark; the axis is logarithmic.

    Args:
        metrics: as `read_metrics` gives them. A loss that is not finite, or not above 0, leaves a gap.
    """
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = _LEFT, _TOP, width - _RIGHT, height - _BOTTOM
    draw.text((left, 8), title, fill=_TEXT)
    step_N = np.array([float(values["step"]) for values in metrics])
    loss_N = np.array([float(values["loss"]) for values in metrics])
    usable_N = np.isfinite(loss_N) & (loss_N > 0)
    if usable_N.any():
        log_N = np.log10(np.where(usable_N, loss_N, np.nan))
        low, high = float(np.nanmin(log_N)), float(np.nanmax(log_N))
        low, high = (low - 0.05, high + 0.05) if high - low < 0.1 else (low, high)
        first, last = float(step_N[0]), max(float(step_N[-1]), float(step_N[0]) + 1)

        def place(step: float, level: float) -> tuple[float, float]:
            across = left + (step - first) / (last - first) * (right - left)
            return across, bottom - (level - low) / (high - low) * (bottom - top)

        for level in np.linspace(low, high, _LINES).tolist():
            y = place(first, level)[1]
            draw.line((left, y, right, y), fill=_GRID)
            label = f"{10**level:.3g}"
            draw.text((left - 6 - draw.textlength(label), y - 6), label, fill=_TEXT)
        for series_N, color, thick in ((log_N, _RAW, 1), (_running_mean(log_N), _SMOOTH, 2)):
            points = [place(*point) for point in zip(step_N.tolist(), series_N.tolist(), strict=True)]
            for one, two in pairwise(points):
                if math.isfinite(one[1]) and math.isfinite(two[1]):
                    draw.line((*one, *two), fill=color, width=thick)
        draw.text((left, bottom + 8), f"step {first:,.0f}", fill=_TEXT)
        label = f"step {last:,.0f}"
        draw.text((right - draw.textlength(label), bottom + 8), label, fill=_TEXT)
    draw.line((left, top, left, bottom, right, bottom), fill=_AXIS)
    file = BytesIO()
    image.quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()


def png_markdown(png: bytes, alternative: str) -> str:
    """Markdown that shows a PNG."""
    return f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})"


def smaller_png(png: bytes, colors: int = 64) -> bytes:
    """The picture with few colors, in a fraction of the bytes."""
    file = BytesIO()
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").quantize(colors).save(file, "PNG", optimize=True)
    return file.getvalue()


def _running_mean(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window of a fiftieth of the steps, gaps left out; NaN where all of the window is a gap."""
    half = max(len(value_N) // 100, 1)
    filled_N = np.nan_to_num(value_N)
    counted_N = np.isfinite(value_N).astype(np.float64)
    window = np.ones(2 * half + 1)
    total_N = np.convolve(filled_N, window)[half : half + len(value_N)]
    count_N = np.convolve(counted_N, window)[half : half + len(value_N)]
    return np.divide(total_N, count_N, out=np.full(len(value_N), np.nan), where=count_N > 0)
