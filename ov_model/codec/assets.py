"""Which frames and patches a benchmark's offline assets keep: windows, whole frames, buckets of time.

The first sampled frame is always whole and padding is never chosen beyond whole frames, so that every asset fills its
mosaics. Source: REFERENCE.md section 8; unlike the published tool, `time_bucket` neither repeats a row while content is
left nor drops the end of the video, whatever the number of buckets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.choose import Choice, ChooseOptions, Rules, choose_patches
from ov_model.codec.index import FrameIndex
from ov_model.codec.select import Selection, SelectOptions, fill_up, rank
from ov_model.codec.video import VideoInfo
from ov_model.errors import UsageError

TOPK_MODES = ("global", "time_bucket")
WINDOW_PICKS = ("none", "begin", "mid", "end", "energy3")


def _choose_options() -> ChooseOptions:
    return ChooseOptions(select=SelectOptions("repeat"))


@dataclass(frozen=True)
class AssetOptions:
    """Every option that decides an asset's bytes; its hash is the stage's configuration hash.

    choose: geometry, signal and energy; its selection is `repeat` with the first frame whole. keep_mid_full_frame: also
    keep frame t = mid_full_frame_index whole (negative: T // 2; 0: none). topk_mode: `global` ranks all other frames
    together, `time_bucket` shares the budget over time_bucket_count stretches of time (0 or less: one for each mosaic
    that is left). window_len: sample from so many frames only (0: all), at the place that window_pick names.
    jpeg_quality: of the mosaics.

    Raises:
        UsageError: an unknown mode, or options that contradict each other.
    """

    choose: ChooseOptions = field(default_factory=_choose_options)
    keep_mid_full_frame: bool = False
    mid_full_frame_index: int = -1
    topk_mode: str = "global"
    time_bucket_count: int = -1
    window_len: int = 0
    window_pick: str = "none"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        for name, allowed in (("topk_mode", TOPK_MODES), ("window_pick", WINDOW_PICKS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.choose.select != SelectOptions("repeat"):
            raise UsageError(
                "assets keep the first frame whole and no padding; leave padding_policy and keep_first_full_frame out"
            )
        if self.choose.sample_start_offset:
            raise UsageError("assets take no sample_start_offset; use window_len and window_pick")
        geometry = self.choose.geometry
        if self.keep_mid_full_frame and self.mid_full_frame_index >= geometry.sequence_length:
            raise UsageError(
                f"mid_full_frame_index is {self.mid_full_frame_index}, but only {geometry.sequence_length} frames are "
                f"sampled; it must lie in 0..{geometry.sequence_length - 1}, or be -1 for the middle"
            )
        if len(self.whole_frames) > geometry.num_images:
            raise UsageError("keep_mid_full_frame needs two mosaics for the two whole frames; raise num_images")

    @property
    def whole_frames(self) -> tuple[int, ...]:
        """Sampled frames t that are kept whole, ascending."""
        if not self.keep_mid_full_frame:
            return (0,)
        middle = self.mid_full_frame_index
        middle = self.choose.geometry.sequence_length // 2 if middle < 0 else middle
        return (0, middle) if middle else (0,)


@dataclass(frozen=True)
class Window:
    """The stretch of a video that is sampled: frames start..last. sums: packet bytes of the windows that energy3
    compared, best: the one it took; None where it did not have to."""

    start: int
    last: int
    sums: dict[str, int] | None = None
    best: str | None = None


def choose_assets(
    path: str | Path, options: AssetOptions, *, on_open: Callable[[VideoInfo], None] | None = None
) -> tuple[Choice, Window]:
    """Choose what a video's asset shows, frames included, in one decode; arguments and errors of `choose_patches`."""
    windows: list[Window] = []

    def sample(index: FrameIndex) -> NDArray[np.int32]:
        windows.append(pick_window(index.size_N, options.window_len, options.window_pick))
        start, last = windows[-1].start, windows[-1].last
        return np.linspace(start, last, options.choose.geometry.sequence_length, dtype=int).astype(np.int32)

    def select(score_THW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> Selection:
        return select_asset_patches(score_THW, valid_HW, options)

    choice = choose_patches(path, options.choose, keep_frames=True, on_open=on_open, rules=Rules(sample, select))
    return choice, windows[-1]


def pick_window(size_N: NDArray[np.int64], length: int, pick: str) -> Window:
    """The window of a video.

    Args:
        size_N: int64 [N], packet bytes of each frame in display order.
        length: frames in the window; 0 or less, or not fewer than there are: the whole video.
        pick: begin (also none), mid, end, or energy3: of these the one with the most packet bytes, the first of equals,
            mid where all are 0.
    """
    n = len(size_N)
    if not 0 < length < n:
        return Window(0, n - 1)
    starts = {"begin": 0, "mid": (n - length) // 2, "end": n - length}
    if pick != "energy3":
        start = starts["begin" if pick == "none" else pick]
        return Window(start, start + length - 1)
    sums = {name: int(size_N[start : start + length].sum()) for name, start in starts.items()}
    best = max(sums, key=lambda name: sums[name]) if any(sums.values()) else "mid"
    return Window(starts[best], starts[best] + length - 1, sums, best)


def select_asset_patches(
    score_THW: NDArray[np.float32], valid_HW: NDArray[np.bool_], options: AssetOptions
) -> Selection:
    """Choose an asset's patches: whole frames, then content by score, a shortfall filled with the last row.

    Args:
        score_THW: float32 [T, G, G] energy of each patch.
        valid_HW: bool [G, G], True where a patch lies wholly inside the content.
    Returns:
        a Selection of N*G*G rows. `global` without a middle frame is `select_patches` with `repeat`.
    """
    frames, rows, columns = score_THW.shape
    cells = rows * columns
    whole = list(options.whole_frames)
    allowed_TS = np.repeat(valid_HW.reshape(1, cells), frames, axis=0)
    allowed_TS[whole] = False
    ranked = rank(score_THW, allowed_TS)
    mandatory = np.concatenate([np.arange(cells) + t * cells for t in whole])
    wanted = options.choose.geometry.num_patches
    left = wanted - mandatory.size
    if options.topk_mode == "time_bucket" and left:
        others = np.setdiff1d(np.arange(frames), whole)
        count = options.time_bucket_count
        count = count if count > 0 else options.choose.geometry.num_images - len(whole)
        ranked = ranked[_take_by_bucket(ranked // cells, others, count, left)]
    return fill_up(np.concatenate([mandatory, ranked[:left]]), wanted, (rows, columns))


def _take_by_bucket(t_R: NDArray[np.intp], others: NDArray[np.intp], count: int, left: int) -> NDArray[np.bool_]:
    """bool [R], which of the ranked patches (best first, t_R their frames) are taken: each bucket's best within its
    share of the budget, then the best of all that are left."""
    buckets = np.array_split(others, max(1, min(count, len(others))))
    taken_R = np.zeros(len(t_R), bool)
    for share, bucket in zip(np.array_split(np.arange(left), len(buckets)), buckets, strict=True):
        taken_R[np.flatnonzero(np.isin(t_R, bucket))[: len(share)]] = True
    taken_R[np.flatnonzero(~taken_R)[: left - int(taken_R.sum())]] = True
    return taken_R
