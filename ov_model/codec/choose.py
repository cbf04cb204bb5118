"""One video -> the patches its codec spent effort on: sample, measure, score, select, in one decode."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.energy import (
    EnergyOptions,
    SquareMap,
    motion_magnitude,
    motion_scale,
    patch_scores,
    residual_gradient,
    residual_histogram,
    residual_scale,
    valid_mask,
)
from ov_model.codec.index import FrameIndex
from ov_model.codec.select import Selection, SelectOptions, sample_frames, select_patches
from ov_model.codec.signals import SignalMaps, SignalOptions, resolve
from ov_model.codec.video import Video, VideoInfo, open_video, rgb, rotate
from ov_model.errors import DamagedVideo, DecodeError, UnreadableSlices, UnsupportedCodec, UsageError
from ov_model.geometry import Geometry
from ov_model.mosaic.pack import fit_content

DAMAGED = ("keep", "fail")


@dataclass(frozen=True)
class ChooseOptions:
    """Every option that decides which patches are chosen; its hash is the stage's configuration hash.

    signal: auto | residual | motion | reencode. apply_sar: stretch to the display aspect ratio. damaged: keep what
    decodes of a damaged file, or fail it. allowed_codecs: refuse other codecs (empty: all that decode).
    """

    geometry: Geometry = field(default_factory=Geometry)
    sample_start_offset: int = 0
    signal: str = "auto"
    signals: SignalOptions = field(default_factory=SignalOptions)
    energy: EnergyOptions = field(default_factory=EnergyOptions)
    select: SelectOptions = field(default_factory=SelectOptions)
    apply_sar: bool = False
    damaged: str = "keep"
    allowed_codecs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.damaged not in DAMAGED:
            raise UsageError(f"damaged is {self.damaged!r}; it must be one of {', '.join(DAMAGED)}")
        if self.sample_start_offset < 0:
            raise UsageError(f"sample_start_offset is {self.sample_start_offset}; it must be at least 0")


@dataclass(frozen=True)
class Rules:
    """How a video is sampled and its patches selected.

    sample: index -> int32 [T] display indices. select: (score_THW, valid_HW) -> Selection.
    """

    sample: Callable[[FrameIndex], NDArray[np.int32]]
    select: Callable[[NDArray[np.float32], NDArray[np.bool_]], Selection]

    @classmethod
    def of(cls, options: ChooseOptions) -> Rules:
        """Stage 1's: the whole video, by the padding policy."""
        geometry = options.geometry
        return cls(
            lambda index: sample_frames(len(index), geometry.sequence_length, options.sample_start_offset),
            lambda score_THW, valid_HW: select_patches(score_THW, valid_HW, geometry, options.select),
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen of one video.

    pos_K3: int32 [K, 3]; the last `repeated` rows are copies. frame_ids_T: int32 [T] display indices.
    signal_method: how its residual was got (coefficients, prediction error, ...).
    score_THW: float32 [T, G, G]. contents: frame index -> uint8 [Hn, Wn, 3], only when asked for.
    picture_T: I, P or B of each; pictures: how many are which. intra_share: share of the chosen t>0 patches that lie
    in I-frames.
    """

    pos_K3: NDArray[np.int32]
    repeated: int
    frame_ids_T: NDArray[np.int32]
    score_THW: NDArray[np.float32]
    square: SquareMap
    valid_HW: NDArray[np.bool_]
    signal: str
    signal_method: str
    info: VideoInfo
    n_frames: int
    damaged: bool
    picture_T: NDArray[np.str_]
    pictures: dict[str, int]
    intra_share: float
    contents: dict[int, NDArray[np.uint8]]

    def over_time(self) -> dict[str, Any]:
        """What the meta files say of each sampled frame: its mean score over the picture's patches, and I, P or B."""
        energy_T = self.score_THW[:, self.valid_HW].mean(axis=1) if self.valid_HW.any() else self.score_THW.mean((1, 2))
        return {
            "energy_by_frame": [round(float(energy), 5) for energy in energy_T],
            "picture_by_frame": "".join(self.picture_T.tolist()),
        }


def choose_patches(
    path: str | Path,
    options: ChooseOptions,
    *,
    keep_frames: bool = False,
    on_open: Callable[[VideoInfo], None] | None = None,
    rules: Rules | None = None,
) -> Choice:
    """Choose the patches of a video, decoding it once (twice when it turns out damaged).

    Args:
        keep_frames: also keep the sampled frames at their size in the square, for packing.
        on_open: told what the container says before any decoding (used to set a deadline).
        rules: another way to sample and select than the options' own.
    Raises:
        SampleError: the video cannot be used; its reason says why.
    """
    rules = rules or Rules.of(options)
    with open_video(path) as video:
        check_codec(video, options.allowed_codecs)
        if on_open is not None:
            on_open(video.info)
        try:
            return _measure(video, options, rules, keep_frames)
        except DamagedVideo as damage:
            if options.damaged == "fail":
                raise DecodeError(f"{path}: {damage}; --damaged keep takes the frames that decode") from damage
            video.reindex()
            try:
                return _measure(video, options, rules, keep_frames)
            except DamagedVideo as again:
                raise DecodeError(f"{path}: {again}, also after decoding it whole") from again


def read_contents(
    path: str | Path, frame_ids_T: NDArray[np.int32], square: SquareMap, *, damaged: bool = False
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (frame index, uint8 [Hn, Wn, 3]) for each distinct sampled frame, in display order.

    Raises:
        DecodeError: a frame that stage 1 saw does not decode any more.
    """
    with open_video(path) as video:
        if damaged:
            video.reindex()
        try:
            for index, frame in video.frames(np.unique(frame_ids_T).tolist()):
                yield index, fit_content(rotate(rgb(frame), video.info.rotation), square)
        except DamagedVideo as damage:
            raise DecodeError(f"{path}: {damage}, though stage 1 could read it; run stage 1 again") from damage


def check_codec(video: Video, allowed: tuple[str, ...]) -> None:
    """Raise UnsupportedCodec when the video's codec is not among the allowed ones (empty: all)."""
    if allowed and video.info.codec not in allowed:
        raise UnsupportedCodec(
            f"{video.path}: codec {video.info.codec} is not among the allowed ones ({', '.join(allowed)}); "
            "extend --allowed_codecs or leave --check_codec out"
        )


def display_size(info: VideoInfo, apply_sar: bool) -> tuple[int, int]:
    """(height, width) in pixels after rotation, and after the sample aspect ratio if asked."""
    width, height = info.width, info.height
    if apply_sar and info.sar[0] > 0 and info.sar[1] > 0:
        width = max(1, round(width * info.sar[0] / info.sar[1]))
    return (width, height) if info.rotation in (90, 270) else (height, width)


def _measure(video: Video, options: ChooseOptions, rules: Rules, keep_frames: bool) -> Choice:
    """Choose with the residual read from the stream; where one frame's cannot be, with all of them estimated."""
    try:
        return _choose(video, options, rules, keep_frames)
    except UnreadableSlices:
        return _choose(video, options, rules, keep_frames, estimate=True)


def _choose(video: Video, options: ChooseOptions, rules: Rules, keep_frames: bool, *, estimate: bool = False) -> Choice:
    geometry, info = options.geometry, video.info
    frame_ids_T = rules.sample(video.index)
    distinct, where_T = np.unique(frame_ids_T, return_inverse=True)
    square = SquareMap.fit(*display_size(info, options.apply_sar), geometry.square_size)
    signal = resolve(options.signal, video, options.signals, estimate=estimate)

    shape = (info.width, info.height) if info.rotation in (90, 270) else (info.height, info.width)
    scorer = _Scorer(shape, square, options)
    contents: dict[int, NDArray[np.uint8]] = {}
    pictures: list[str] = []
    for index, frame, maps in signal.measure(video, distinct.tolist()):
        scorer.add(maps, info.rotation)
        pictures.append(maps.picture)
        if keep_frames:
            contents[index] = fit_content(rotate(rgb(frame), info.rotation), square)
    score_THW = scorer.scores()[where_T]
    valid_HW = valid_mask(square, geometry)
    selection = rules.select(score_THW, valid_HW)
    picture_T = np.array(pictures)[where_T]
    later = selection.pos_K3[selection.pos_K3[:, 0] > 0, 0]
    return Choice(
        pos_K3=selection.pos_K3,
        repeated=selection.repeated,
        frame_ids_T=frame_ids_T,
        score_THW=score_THW,
        square=square,
        valid_HW=valid_HW,
        signal=signal.name,
        signal_method=signal.method,
        info=info,
        n_frames=len(video.index),
        damaged=video.damaged,
        picture_T=picture_T,
        pictures=dict(sorted(Counter(picture_T.tolist()).items())),
        intra_share=round(float((picture_T[later] == "I").mean()), 4) if later.size else 0.0,
        contents=contents,
    )


class _Scorer:
    """Scores frames as they come; `normalize clip` lets their maps wait on disk until the video's scale is known."""

    def __init__(self, shape: tuple[int, int], square: SquareMap, options: ChooseOptions) -> None:
        self.shape = shape
        self.square, self.geometry, self.options = square, options.geometry, options.energy
        self._scores: list[NDArray[np.float32]] = []
        self._waiting: list[tuple[bool, bool]] = []
        self._spool = tempfile.TemporaryFile() if options.energy.normalize == "clip" else None
        self._motion: list[NDArray[np.float32]] = []
        self._histogram = np.zeros(256, np.int64)

    def add(self, maps: SignalMaps, rotation: int) -> None:
        """Take the next frame's maps, in coded orientation."""
        magnitude = (
            None if maps.motion_hw2 is None else rotate(motion_magnitude(maps.motion_hw2, self.options), rotation)
        )
        residual = None if maps.residual_HW is None else rotate(maps.residual_HW, rotation)
        if residual is not None and self.options.res_use_grad:
            residual = residual_gradient(residual)
        if self._spool is not None:
            self._hold(magnitude, residual)
            return
        motion_at_1 = 1.0 if magnitude is None else motion_scale(magnitude, self.options)
        residual_at_1 = 1.0 if residual is None else residual_scale(residual_histogram(residual), self.options)
        self._score(magnitude, residual, motion_at_1, residual_at_1)

    def scores(self) -> NDArray[np.float32]:
        """float32 [frames, G, G] of all frames taken so far."""
        if self._spool is not None:
            moving = np.concatenate(self._motion) if self._motion else np.zeros(1, np.float32)
            motion_at_1 = motion_scale(moving if moving.size else np.zeros(1, np.float32), self.options)
            self._histogram[0] = 0
            residual_at_1 = residual_scale(self._histogram, self.options)
            self._spool.seek(0)
            for has_motion, has_residual in self._waiting:
                magnitude = np.load(self._spool, allow_pickle=False) if has_motion else None
                residual = np.load(self._spool, allow_pickle=False) if has_residual else None
                self._score(magnitude, residual, motion_at_1, residual_at_1)
            self._spool.close()
        return np.stack(self._scores)

    def _hold(self, magnitude: NDArray[np.float32] | None, residual: NDArray[np.uint8] | None) -> None:
        assert self._spool is not None
        self._waiting.append((magnitude is not None, residual is not None))
        if magnitude is not None:
            np.save(self._spool, magnitude, allow_pickle=False)
            self._motion.append(magnitude[magnitude > 0])
        if residual is not None:
            np.save(self._spool, residual, allow_pickle=False)
            self._histogram += residual_histogram(residual)

    def _score(
        self,
        magnitude: NDArray[np.float32] | None,
        residual: NDArray[np.uint8] | None,
        motion_at_1: float,
        residual_at_1: float,
    ) -> None:
        self._scores.append(
            patch_scores(
                magnitude, residual, motion_at_1, residual_at_1, self.square, self.geometry, self.options,
                shape=self.shape,
            )
        )  # fmt: skip
