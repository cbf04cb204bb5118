"""What every signal gives and takes: maps of a frame, options, and small helpers on frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ov_model.codec.kernels import vector_columns
from ov_model.codec.pixels import side_data
from ov_model.codec.video import Video
from ov_model.errors import DecodeError, UsageError

INTRA = ("coded", "contrast", "zero")
DEAD_ZONES = ("qp", "fixed", "none")
_PICTURES = {1: "I", 2: "P", 3: "B", 4: "P", 5: "I", 6: "P", 7: "B"}


@dataclass(frozen=True)
class SignalOptions:
    """How residuals are measured.

    intra: what intra blocks count: their coded residual where it can be read and else as `contrast` (`coded`), their
    local contrast |Y - 4x4 mean| (`contrast`), nothing (`zero`). Where the residual is estimated, references: frames
    tried in each direction; dead_zone: which errors count, those above a quarter of the block's quantizer step (`qp`),
    of a fixed step (`fixed`), all (`none`).

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


def frame_vectors(frame: VideoFrame) -> NDArray[np.int32] | None:
    """The frame's motion vectors as int32 [B, 8] (see kernels), or None where it carries none."""
    vectors = side_data(frame, "MOTION_VECTORS")
    if vectors is None or not len(vectors):
        return None
    return vector_columns(vectors.to_ndarray())


def picture_type(frame: VideoFrame) -> str:
    """I, P or B."""
    return _PICTURES.get(int(frame.pict_type), "P")


def distinct(frame_ids: Sequence[int]) -> list[int]:
    return sorted({int(i) for i in frame_ids})


def same_size(video: Video, frames: Iterator[tuple[int, VideoFrame]]) -> Iterator[tuple[int, VideoFrame]]:
    """Pass frames on; raise DecodeError at one of another size than the video's first."""
    info = video.info
    for i, frame in frames:
        if (frame.width, frame.height) != (info.width, info.height):
            raise DecodeError(
                f"{video.path}: frame {i} is {frame.width}x{frame.height}, but the video began as "
                f"{info.width}x{info.height}; a change of size is not supported: split or re-encode the file"
            )
        yield i, frame
