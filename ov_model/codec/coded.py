"""The residual as the encoder coded it: H.264 coefficients read from the stream and transformed, no pixel predicted.

Needs the packets of the sampled frames alone, no reference frames, and is exact: the decoder adds these very values to
its prediction. Progressive H.264, 4:2:0 or monochrome; other H.264 is estimated (`predict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ov_model.codec.h264.headers import Unreadable
from ov_model.codec.h264.picture import CodedPicture, StreamReader
from ov_model.codec.kernels import paint_motion
from ov_model.codec.maps import SignalMaps, SignalOptions, distinct, frame_vectors, picture_type, same_size
from ov_model.codec.predict import contrast_of
from ov_model.codec.video import Video
from ov_model.errors import UnreadableSlices


class CodedResidual:
    """Vectors from FFmpeg, residual from the stream's coefficients."""

    name = "residual"
    method = "coefficients"

    def __init__(self, options: SignalOptions) -> None:
        self.options = options

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, VideoFrame, SignalMaps]]:
        """As the protocol says; raises UnreadableSlices at a frame that decodes but cannot be read here."""
        frames = video.frames(distinct(frame_ids), motion_vectors=True, inspect=packet_inspector)
        for i, frame in same_size(video, frames):
            try:
                residual = coded_residual(frame, self.options, whole=not video.damaged)
            except Unreadable as error:
                raise UnreadableSlices(f"{video.path}: the slices of frame {i} cannot be read: {error}") from error
            rows_B8 = frame_vectors(frame)
            motion = None if rows_B8 is None else paint_motion(rows_B8, frame.height, frame.width)
            yield i, frame, SignalMaps(motion, residual, picture_type(frame))


def packet_inspector(extradata: bytes | None) -> Callable[[Packet], CodedPicture]:
    """For `Video.frames`: frames then carry their CodedPicture as `opaque`."""
    reader = StreamReader(extradata)
    return lambda packet: reader.see(bytes(packet))


def coded_picture(frame: VideoFrame) -> CodedPicture:
    """What `packet_inspector` made of a frame's packet; raises Unreadable where it saw none."""
    if not isinstance(frame.opaque, CodedPicture):
        raise Unreadable("the frame did not come from an inspected packet")
    return frame.opaque


def is_readable(frame: VideoFrame) -> bool:
    """Whether the slices of a frame that went past `packet_inspector` can be read."""
    try:
        coded_picture(frame).read()
    except Unreadable:
        return False
    return True


def coded_residual(frame: VideoFrame, options: SignalOptions, *, whole: bool = True) -> NDArray[np.uint8]:
    """Absolute residual, uint8 [H, W], of a frame that went past `packet_inspector`.

    Raises:
        Unreadable: with `whole`, what is broken or not supported; without, what was read before counts.
    """
    residual_HW, intra_HW = coded_picture(frame).residual(frame.height, frame.width, whole=whole)
    if options.intra != "coded" and intra_HW.any():
        instead = 0 if options.intra == "zero" else contrast_of(frame, options)
        residual_HW = np.where(intra_HW, instead, residual_HW).astype(np.uint8)
    return residual_HW
