"""Small plots as PNG: loss, energy over time, counts, speed over runs. Numbers in, bytes out; matplotlib comes late.

Shapes: T sampled frames · N points.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_DPI = 100
_COLORS = 64
_FEW = 50
_TEXT, _GRID = "#3a4150", "#e4e7ec"
LINE, PALE, WARM, BAD, GOOD = "#2456a6", "#b9cdea", "#e8940c", "#c2413b", "#3f8f5f"
"""Colors that mean the same in every plot: a measure, its raw values, what was chosen, what failed, what is well."""


def new_figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A figure of so many pixels with one pair of axes, in the style of all plots here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_TEXT)
    axes.tick_params(which="both", colors=_TEXT, labelsize=8)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def as_png(figure: Figure) -> bytes:
    """The figure with few colors: a fifth of the bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return smaller_png(file.getvalue())


def smaller_png(png: bytes, colors: int = _COLORS) -> bytes:
    """A PNG with few colors, in a fraction of the bytes."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(colors, Image.Quantize.MAXCOVERAGE).save(file, "PNG", optimize=True)
    return file.getvalue()


def draw_loss(metrics: Sequence[Mapping[str, Any]], title: str, width: int = 640, height: int = 300) -> bytes:
    """Loss over steps on a logarithmic axis; where there are many, in pale, with their running mean in dark.

    Args:
        metrics: lines of a run's metrics.jsonl. A loss that is not finite, or not above 0, leaves a gap.
    """
    step_N = np.array([float(values["step"]) for values in metrics])
    loss_N = np.array([float(values["loss"]) for values in metrics])
    loss_N = np.where(np.isfinite(loss_N) & (loss_N > 0), loss_N, np.nan)
    figure, axes = _titled(title, width, height)
    if np.isfinite(loss_N).any():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter(_sparse(loss_N))
    if len(step_N) < _FEW:
        axes.plot(step_N, loss_N, color=LINE, linewidth=1.6, marker=".")
    else:
        axes.plot(step_N, loss_N, color=PALE, linewidth=1, label="logged")
        axes.plot(step_N, 10 ** running_mean(np.log10(loss_N)), color=LINE, linewidth=2, label="running mean")
        axes.legend(fontsize=7, frameon=False)
    axes.set_xlabel("step", color=_TEXT, fontsize=8)
    _whole(axes.xaxis)
    return as_png(figure)


def draw_energy(
    frame_ids_T: NDArray[np.int32],
    energy_T: NDArray[np.float32],
    chosen_T: NDArray[np.int64],
    title: str,
    *,
    patches: int,
    intra_T: NDArray[np.bool_] | None = None,
    width: int = 640,
    height: int = 220,
) -> bytes:
    """Energy of each sampled frame as a line, over bars of how much of the frame was chosen.

    Args:
        frame_ids_T: their numbers in the video. energy_T: mean patch score. chosen_T: patches chosen of each.
        patches: a frame has. intra_T: which are I-frames, marked below the axis.
    """
    figure, axes = _titled(title, width, height)
    share = axes.twinx()
    share.spines[["top"]].set_visible(False)
    share.tick_params(colors=WARM, labelsize=8)
    share.spines["right"].set_color(WARM)
    wide = float(np.diff(np.unique(frame_ids_T)).min(initial=frame_ids_T.max() + 1))
    share.bar(frame_ids_T, 100 * chosen_T / patches, width=max(0.8 * wide, 0.6), color=WARM, alpha=0.45)
    share.set_ylim(0, 105)
    share.set_ylabel("patches chosen, % of the frame", color=WARM, fontsize=8)
    order_T = np.argsort(frame_ids_T, kind="stable")
    axes.plot(frame_ids_T[order_T], energy_T[order_T], color=LINE, linewidth=1.6, marker=".", markersize=4)
    axes.set_ylim(0, max(float(energy_T.max(initial=0)) * 1.12, 1e-6))
    axes.set_ylabel("mean energy", color=LINE, fontsize=8)
    axes.set_xlabel("frame of the video", color=_TEXT, fontsize=8)
    axes.set_zorder(share.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.grid(visible=False)
    share.grid(color=_GRID, linewidth=0.8)
    share.set_axisbelow(True)
    if intra_T is not None and intra_T.any():
        at = frame_ids_T[intra_T]
        axes.plot(at, np.zeros(len(at)), "^", color=BAD, markersize=6, clip_on=False, label="I-frame")
        axes.legend(fontsize=7, frameon=False, loc="upper right")
    return as_png(figure)


def draw_counts(
    counts: Mapping[str, float], title: str, color: str = BAD, width: int = 640, full: float | None = None
) -> bytes:
    """A bar per name, the longest first; `full`: the most that there can be."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    figure, axes = _titled(title, width, 60 + 26 * max(len(names), 1))
    axes.barh(range(len(names)), [counts[name] for name in names], color=color, height=0.62)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if all(isinstance(value, int) for value in counts.values()):
        _whole(axes.xaxis)
    for place, name in enumerate(names):
        end = (float(counts[name]), float(place))
        value = counts[name]
        axes.annotate(
            f"{value:,}" if isinstance(value, int) else f"{value:,.2f}",
            end,
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    longest = max([*counts.values(), 0])
    axes.set_xlim(0, full or longest * 1.12 or 1)
    return as_png(figure)


def draw_runs(
    values: Sequence[float], title: str, unit: str, width: int = 640, height: int = 200, color: str = LINE
) -> bytes:
    """A value of each run, oldest first; the last one is named."""
    figure, axes = _titled(title, width, height)
    runs_N = np.arange(1, len(values) + 1)
    axes.plot(runs_N, values, color=color, marker="o", markersize=4)
    axes.set_ylim(0, max([*values, 1e-9]) * 1.25)
    axes.set_xlabel("run", color=_TEXT, fontsize=8)
    axes.set_ylabel(unit, color=_TEXT, fontsize=8)
    _whole(axes.xaxis)
    if len(values):
        last = (float(runs_N[-1]), float(values[-1]))
        axes.annotate(f"{values[-1]:.3g}", last, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    return as_png(figure)


def draw_spread(value_N: Sequence[float], title: str, label: str, width: int = 640, height: int = 200) -> bytes:
    """A histogram of a measure of every sample."""
    figure, axes = _titled(title, width, height)
    axes.hist(list(value_N), bins=min(40, max(5, len(value_N) // 4)), color=LINE)
    axes.set_xlabel(label, color=_TEXT, fontsize=8)
    axes.set_ylabel("samples", color=_TEXT, fontsize=8)
    _whole(axes.yaxis)
    return as_png(figure)


def running_mean(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window of a fiftieth of the points, gaps left out; NaN where all of the window is a gap."""
    half = max(len(value_N) // 100, 1)
    window = np.ones(2 * half + 1)

    def sums(filled_N: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.convolve(filled_N, window)[half : half + len(value_N)]

    if not len(value_N):
        return value_N
    total_N, count_N = sums(np.nan_to_num(value_N)), sums(np.isfinite(value_N).astype(np.float64))
    return np.divide(total_N, count_N, out=np.full(len(value_N), np.nan), where=count_N > 0)


def _whole(axis: Axis) -> None:
    """Ticks of an axis of counts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 5, 10], integer=True))


def _titled(title: str, width: int, height: int) -> tuple[Figure, Axes]:
    figure, axes = new_figure(width, height)
    axes.set_title(title.replace("$", r"\$"), color=_TEXT, fontsize=9, loc="left")
    return figure, axes


def _sparse(value_N: NDArray[np.float64]) -> Callable[[float, float], str]:
    """Labels of a logarithmic axis between its powers of ten: where it spans less than two of them."""
    finite_N = value_N[np.isfinite(value_N)]
    narrow = float(finite_N.max() / finite_N.min()) < 100
    return lambda value, _: f"{value:.3g}" if narrow and f"{value:e}"[0] in "1235" else ""
