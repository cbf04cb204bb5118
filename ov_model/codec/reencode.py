"""The signal for codecs without vectors: re-encode (frame before, frame) with x264 and measure that.

Each sampled frame is a fresh two-picture H.264 stream, an I picture of its predecessor and a P picture of itself, on
one thread, so that the result depends on those two frames alone. It is another signal than the native codec's, the same
for every codec and uploader's encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ov_model.codec.coded import coded_residual, packet_inspector
from ov_model.codec.kernels import paint_motion
from ov_model.codec.maps import SignalMaps, SignalOptions, distinct, frame_vectors, picture_type, same_size
from ov_model.codec.video import Video

_X264 = {
    "preset": "veryfast",
    "crf": "23",
    "x264-params": "threads=1:lookahead-threads=1:scenecut=0:bframes=0:rc-lookahead=0:mbtree=0",
}


class ReencodeSignal:
    """Vectors and residual of a fast in-memory re-encode of the sampled frames, each with its predecessor."""

    name = "reencode"
    method = "x264 veryfast"

    def __init__(self, options: SignalOptions) -> None:
        self.options = options

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, VideoFrame, SignalMaps]]:
        sampled = set(distinct(frame_ids))
        wanted = sorted(sampled | {i - 1 for i in sampled if i})
        before: NDArray[np.uint8] | None = None
        before_index = -1
        for i, frame in same_size(video, video.frames(wanted)):
            planes = even_yuv420(frame)
            if i in sampled:
                pair = [planes] if before is None or before_index != i - 1 else [before, planes]
                yield i, frame, self._maps(pair, frame.height, frame.width)
            before, before_index = planes, i

    def _maps(self, pair: list[NDArray[np.uint8]], height: int, width: int) -> SignalMaps:
        last = decode_h264(encode_h264(pair))[-1]
        rows_B8 = frame_vectors(last)
        motion = None if rows_B8 is None else paint_motion(rows_B8, height, width)
        residual = coded_residual(last, self.options)
        return SignalMaps(motion, np.ascontiguousarray(residual[:height, :width]), picture_type(last))


def even_yuv420(frame: VideoFrame) -> NDArray[np.uint8]:
    """The frame as 8-bit yuv420p, uint8 [3/2 H, W], odd sides padded by repeating the last row or column."""
    if frame.width % 2 or frame.height % 2:
        rgb = np.asarray(frame.reformat(format="rgb24").to_ndarray(), np.uint8)
        padded = np.pad(rgb, ((0, frame.height % 2), (0, frame.width % 2), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(padded, format="rgb24")
    if frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p")
    return np.asarray(frame.to_ndarray(), np.uint8)


def encode_h264(pictures: Sequence[NDArray[np.uint8]]) -> list[Packet]:
    """One H.264 packet per picture (yuv420p, uint8 [3/2 H, W]): the first an I picture, the others P."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures[0].shape[0] * 2 // 3, pictures[0].shape[1]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1
    encoder.options = dict(_X264)
    packets: list[Packet] = []
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def decode_h264(packets: Sequence[Packet]) -> list[VideoFrame]:
    """Decode packets of one stream in order, with motion vectors and what `coded_residual` needs."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.flags |= Flags.copy_opaque
    see = packet_inspector(None)
    decoder.options = {"flags2": "+export_mvs"}
    frames: list[VideoFrame] = []
    for packet in packets:
        packet.opaque = see(packet)
        frames += decoder.decode(packet)
    return frames + decoder.decode(None)
