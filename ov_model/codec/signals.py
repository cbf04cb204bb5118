"""What the codec says about each sampled frame: motion and residual maps. One class per signal, one protocol.

    signal = resolve("auto", video, SignalOptions())
    for i, frame, maps in signal.measure(video, [0, 7, 15]):
        ...

Maps are in coded orientation (not rotated). Sampled frames stream in display order; what is held in memory does not grow
with the video's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.kernels import paint_motion, vector_columns
from ov_model.codec.pixels import side_data
from ov_model.codec.video import Video
from ov_model.errors import DecodeError, UnsupportedCodec, UsageError

INTRA = ("coded", "contrast", "zero")
DEAD_ZONES = ("qp", "fixed", "none")
_PROBED = 3
_PICTURES = {1: "I", 2: "P", 3: "B", 4: "P", 5: "I", 6: "P", 7: "B"}


@dataclass(frozen=True)
class SignalOptions:
    """How residuals are measured.

    intra: what blocks without vectors count, their coded residual where it can be read and else the local contrast
    (`coded`), the contrast |Y - 4x4 mean| (`contrast`), nothing (`zero`). Where the residual is estimated, references:
    frames tried in each direction; dead_zone: what prediction errors count, above a quarter of the block's quantizer
    step (`qp`), of a fixed step (`fixed`), all (`none`).

    Raises:
        UsageError: an unknown mode or no reference.
    """

    intra: str = "coded"
    references: int = 2
    dead_zone: str = "qp"

    def __post_init__(self) -> None:
        for name, allowed in (("intra", INTRA), ("dead_zone", DEAD_ZONES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.references < 1:
            raise UsageError(f"references is {self.references}; it must be at least 1")


@dataclass(frozen=True, eq=False)
class SignalMaps:
    """One frame's maps, in coded orientation.

    motion_hw2: int16 [ceil(H/4), ceil(W/4), 2], list-0 vectors (x, y) in whole pixels, 0 where none; None for a frame
    without vectors. residual_HW: uint8 [H, W], absolute residual, 0 = none; None for a signal without residuals.
    picture: I, P or B, of the picture the maps come from.
    """

    motion_hw2: NDArray[np.int16] | None
    residual_HW: NDArray[np.uint8] | None
    picture: str


class Signal(Protocol):
    """A way to measure frames. name: as asked for and recorded. method: how the residual is got, for the record."""

    name: str
    method: str

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame, SignalMaps]]:
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

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame, SignalMaps]]:
        for i, frame in same_size(video, video.frames(distinct(frame_ids), motion_vectors=True)):
            rows_B8 = frame_vectors(frame)
            motion = None if rows_B8 is None else paint_motion(rows_B8, frame.height, frame.width)
            yield i, frame, SignalMaps(motion, None, picture_type(frame))


def resolve(name: str, video: Video, options: SignalOptions | None = None) -> Signal:
    """The signal of that name for a video; `auto` is `residual` where predicted frames carry vectors, else `reencode`.

    Decodes the first frames that are no keyframes to see whether they carry vectors.

    Raises:
        UsageError: no signal of that name.
        UnsupportedCodec: the video cannot give the signal asked for by name.
        DamagedVideo: one of the frames looked at does not decode.
    """
    from ov_model.codec.predict import PredictedResidual
    from ov_model.codec.reencode import ReencodeSignal

    options = options or SignalOptions()
    if name == "reencode":
        return ReencodeSignal(options)
    if name not in ("auto", "residual", "motion"):
        raise UsageError(f"signal is {name!r}; it must be one of auto, residual, motion, reencode")
    if not carries_vectors(video):
        if name == "auto":
            return ReencodeSignal(options)
        raise UnsupportedCodec(
            f"{video.path}: signal {name!r} needs predicted frames with motion vectors, and this {video.info.codec} stream "
            "exports none; use --signal auto or reencode"
        )
    return MotionSignal(options) if name == "motion" else PredictedResidual(options)


def carries_vectors(video: Video) -> bool:
    """Whether any of the first few frames that are no keyframes carries motion vectors."""
    predicted = np.flatnonzero(~video.index.key_N)[:_PROBED].tolist()
    return any(frame_vectors(frame) is not None for _, frame in video.frames(predicted, motion_vectors=True))


def frame_vectors(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    """The frame's motion vectors as int32 [B, 8] (see kernels), or None where it carries none."""
    vectors = side_data(frame, "MOTION_VECTORS")
    if vectors is None or not len(vectors):
        return None
    return vector_columns(vectors.to_ndarray())


def picture_type(frame: av.VideoFrame) -> str:
    """I, P or B."""
    return _PICTURES.get(int(frame.pict_type), "P")


def distinct(frame_ids: Sequence[int]) -> list[int]:
    return sorted({int(i) for i in frame_ids})


def same_size(video: Video, frames: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Pass frames on; raise DecodeError at one of another size than the video's first."""
    info = video.info
    for i, frame in frames:
        if (frame.width, frame.height) != (info.width, info.height):
            raise DecodeError(
                f"{video.path}: frame {i} is {frame.width}x{frame.height}, but the video began as {info.width}x{info.height}; "
                "a change of size in mid-stream is not supported: split or re-encode the file"
            )
        yield i, frame
