"""Proof that each signal works here: known motion in, the expected patches out. Part of `ov doctor`.

Two clips are made: a textured square that moves, and one that stays while its texture changes, each over a still
texture. After the first frame, the patches chosen first must be those that the square covers or has just left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ov_model.codec.choose import ChooseOptions, choose_patches
from ov_model.codec.signals import SignalOptions, carries_vectors, resolve
from ov_model.codec.video import open_video
from ov_model.geometry import Geometry

GEOMETRY = Geometry(sequence_length=8, num_images=2, square_size=192, patch_size=16)
VELOCITY = (6, 4)
"""Pixels right and down that the moving square goes in one frame."""

SIGNALS = {"residual": "h264", "motion": "h264", "reencode": "hevc"}
"""Signal -> codec of the clip that proves it: what it is for."""

_SIDE = 40
_START = (24, 32)
_FPS = 25
_AGREE = 0.95
_X264 = "bframes=0:ref=1:scenecut=0:keyint=250:weightp=0"
_X265 = "bframes=0:scenecut=0:keyint=250:pools=none:frame-threads=1:log-level=none"
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "medium", "crf": "20", "x264-params": _X264}),
    "hevc": ("libx265", {"preset": "fast", "crf": "20", "x265-params": _X265}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}),
    "av1": ("libsvtav1", {"preset": "12", "crf": "20", "svtav1-params": "lp=1"}),
    "mpeg4": ("mpeg4", {"qscale": "3"}),
    "mpeg2video": ("mpeg2video", {"qscale": "3"}),
}
"""Codec -> encoder that makes a clip of it here, and its options."""


@dataclass(frozen=True)
class Proof:
    """How a signal did on its clips.

    on_path: share of the first-chosen patches that the square touches. covered: share of the patches it covers whole
    that were chosen. exact: share of frames whose vectors inside the square are those it was moved by; None for a
    clip in which nothing moves.
    """

    signal: str
    codec: str
    pattern: str
    on_path: float
    covered: float
    exact: float | None

    @property
    def ok(self) -> bool:
        """Whether the expected patches came out."""
        return min(self.on_path, self.covered, 1.0 if self.exact is None else self.exact) >= _AGREE


def prove(signal: str, folder: Path) -> list[Proof]:
    """Prove a signal on clips made in `folder`; `motion`, which sees no residual, on the moving square only.

    Raises:
        OvError: the clip cannot be read or gives no such signal. FFmpegError: it cannot be made.
    """
    codec = SIGNALS[signal] if can_encode(SIGNALS[signal]) else "h264"
    patterns = ("moving",) if signal == "motion" else ("moving", "changing")
    return [_prove(signal, codec, pattern, folder) for pattern in patterns]


def _prove(signal: str, codec: str, pattern: str, folder: Path) -> Proof:
    path = make_clip(folder / f"{pattern}.{codec}.mkv", codec, pattern)
    choice = choose_patches(path, ChooseOptions(geometry=GEOMETRY, signal=signal))
    touched_THW, covered_THW, mostly = _expected(pattern)
    chosen = choice.pos_K3[choice.pos_K3[:, 0] > 0]
    first = chosen[:mostly]
    picked_THW = np.zeros_like(covered_THW)
    picked_THW[tuple(chosen.T)] = True
    return Proof(
        signal=signal,
        codec=codec,
        pattern=pattern,
        on_path=float(touched_THW[tuple(first.T)].mean()),
        covered=float(picked_THW[covered_THW].mean()),
        exact=_exact_motion(path, signal) if pattern == "moving" else None,
    )


def _expected(pattern: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """bool [T, G, G] of patches touched now or a frame ago, and covered whole, t > 0; how many are half covered."""
    share_THW = np.stack([_coverage(square_corner(pattern, t)) for t in range(GEOMETRY.sequence_length)])
    touched_THW = share_THW > 0
    touched_THW[1:] |= share_THW[:-1] > 0
    covered_THW = share_THW == 1
    covered_THW[0] = False
    return touched_THW, covered_THW, int((share_THW[1:] >= 0.5).sum())


def _coverage(corner: tuple[int, int]) -> NDArray[np.float64]:
    """float64 [G, G]: share of each patch that the square covers."""
    grid, patch = GEOMETRY.grid, GEOMETRY.patch_size
    mask = np.zeros((GEOMETRY.square_size, GEOMETRY.square_size))
    mask[corner[1] : corner[1] + _SIDE, corner[0] : corner[0] + _SIDE] = 1
    return mask.reshape(grid, patch, grid, patch).mean(axis=(1, 3))


def _exact_motion(path: Path, signal: str) -> float:
    """Share of frames after the first whose vectors, well inside the square, have the known motion as their median."""
    exact = []
    with open_video(path) as video:
        measured = resolve(signal, video, SignalOptions()).measure(video, range(len(video.index)))
        for t, _, maps in measured:
            if t == 0 or maps.motion_hw2 is None:
                continue
            x, y = square_corner("moving", t)
            inside = maps.motion_hw2[(y + 8) // 4 : (y + _SIDE - 8) // 4, (x + 8) // 4 : (x + _SIDE - 8) // 4]
            exact.append(tuple(np.median(inside.reshape(-1, 2), axis=0)) == (-VELOCITY[0], -VELOCITY[1]))
    return float(np.mean(exact)) if exact else 0.0


def can_encode(codec: str) -> bool:
    """Whether this FFmpeg has the encoder for clips of a codec."""
    return ENCODERS[codec][0] in av.codecs_available


def vectors_of(codec: str, folder: Path) -> bool:
    """Decode a made clip of a codec, all of it; whether its frames carry motion vectors.

    Raises:
        OvError: it does not decode. FFmpegError: it cannot be made.
    """
    path = make_clip(folder / f"vectors.{codec}.mkv", codec, "moving")
    with open_video(path) as video:
        for _ in video.frames(range(len(video.index))):
            pass
        return carries_vectors(video)


def make_clip(path: Path, codec: str, pattern: str) -> Path:
    """Encode a proof clip: T frames of S x S pixels, every frame but the first predicted from the one before."""
    encoder, options = ENCODERS[codec]
    side = GEOMETRY.square_size
    with _quiet_encoder(), av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(encoder, rate=_FPS))
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.options = {**options}
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, _FPS)
        for t, picture in enumerate(_pictures(pattern)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = t, Fraction(1, _FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextmanager
def _quiet_encoder() -> Iterator[None]:
    """SVT-AV1 writes its settings to the process's standard error, past FFmpeg's log; errors still raise."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def square_corner(pattern: str, t: int) -> tuple[int, int]:
    """(x, y) of the square's top left pixel in frame t."""
    return (_START[0] + VELOCITY[0] * t, _START[1] + VELOCITY[1] * t) if pattern == "moving" else _START


def _pictures(pattern: str) -> Iterator[NDArray[np.uint8]]:
    """RGB uint8 [S, S, 3], one a frame."""
    background = _texture(GEOMETRY.square_size, seed=0)
    for t in range(GEOMETRY.sequence_length):
        x, y = square_corner(pattern, t)
        picture = background.copy()
        picture[y : y + _SIDE, x : x + _SIDE] = _texture(_SIDE, seed=1 if pattern == "moving" else 1 + t)
        yield picture


def _texture(side: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random RGB, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(16, 240, (side // 4, side // 4, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
