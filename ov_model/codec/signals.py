"""What the codec says about each sampled frame: motion and residual maps. One class per signal, one protocol.

    signal = resolve("auto", video, SignalOptions())
    for i, frame, maps in signal.measure(video, [0, 7, 15]):
        ...

Maps are in coded orientation (not rotated). Sampled frames stream in display order; what is held in memory does not
grow with the video's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from av.video.frame import VideoFrame

from ov_model.codec.coded import CodedResidual, is_readable, packet_inspector
from ov_model.codec.kernels import paint_motion
from ov_model.codec.maps import SignalMaps, SignalOptions, distinct, frame_vectors, picture_type, same_size
from ov_model.codec.predict import PredictedResidual
from ov_model.codec.reencode import ReencodeSignal
from ov_model.codec.video import Video
from ov_model.errors import UnsupportedCodec, UsageError

__all__ = ["SIGNALS", "Signal", "SignalMaps", "SignalOptions", "carries_vectors", "resolve"]

SIGNALS = ("auto", "residual", "motion", "reencode")
_PROBED = 3


class Signal(Protocol):
    """A way to measure frames. name: as asked for and recorded. method: how the residual is got, for the record."""

    name: str
    method: str

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, VideoFrame, SignalMaps]]:
        """Yield (display index, frame, maps) once per distinct frame, in display order.

        Raises:
            DamagedVideo: a frame does not decode; re-index and measure anew.
            DecodeError: a frame of another size than the video's.
        """
        ...


class MotionSignal:
    """The codec's vectors alone; the quickest."""

    name = "motion"
    method = "vectors"

    def __init__(self, options: SignalOptions) -> None:
        pass

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, VideoFrame, SignalMaps]]:
        for i, frame in same_size(video, video.frames(distinct(frame_ids), motion_vectors=True)):
            rows_B8 = frame_vectors(frame)
            motion = None if rows_B8 is None else paint_motion(rows_B8, frame.height, frame.width)
            yield i, frame, SignalMaps(motion, None, picture_type(frame))


def resolve(name: str, video: Video, options: SignalOptions | None = None, *, estimate: bool = False) -> Signal:
    """The signal of that name for a video; `auto` is `residual` where predicted frames carry vectors, else `reencode`.

    `residual` is read from the stream where that is supported, else (or with `estimate`) estimated; its `method` says
    which. Decodes the first frames that are no keyframes to see what they carry.

    Raises:
        UsageError: no signal of that name.
        UnsupportedCodec: the video cannot give the signal asked for by name.
        DamagedVideo: one of the frames looked at does not decode.
    """
    options = options or SignalOptions()
    if name not in SIGNALS:
        raise UsageError(f"signal is {name!r}; it must be one of {', '.join(SIGNALS)}")
    if name == "reencode":
        return ReencodeSignal(options)
    probed = _first_predicted(video)
    if not any(frame_vectors(frame) is not None for frame in probed):
        if name == "auto":
            return ReencodeSignal(options)
        raise UnsupportedCodec(
            f"{video.path}: signal {name!r} needs predicted frames with motion vectors, and this {video.info.codec} "
            "stream exports none; use --signal auto or reencode"
        )
    if name == "motion":
        return MotionSignal(options)
    readable = not estimate and any(map(is_readable, probed))
    return CodedResidual(options) if readable else PredictedResidual(options)


def carries_vectors(video: Video) -> bool:
    """Whether any of the first few frames that are no keyframes carries motion vectors."""
    return any(frame_vectors(frame) is not None for frame in _first_predicted(video))


def _first_predicted(video: Video) -> list[VideoFrame]:
    predicted = np.flatnonzero(~video.index.key_N)[:_PROBED].tolist()
    inspect = packet_inspector if video.info.codec == "h264" else None
    return [frame for _, frame in video.frames(predicted, motion_vectors=True, inspect=inspect)]
