"""The signal for codecs without vectors: re-encode (frame before, frame) with x264 and measure that.

Each sampled frame is a fresh two-picture H.264 stream, an I picture of its predecessor and a P picture of itself, on one
thread, so that the result depends on those two frames alone. It is another signal than the native codec's, the same for
every codec and uploader's encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.kernels import paint_cells, paint_motion, prediction_error
from ov_model.codec.signals import SignalMaps, SignalOptions, distinct, frame_vectors, picture_type, same_size
from ov_model.codec.video import Video, luma

_X264 = {
    "preset": "veryfast",
    "crf": "23",
    "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:scenecut=0:bframes=0:rc-lookahead=0:mbtree=0:keyint=250",
}


class ReencodeSignal:
    """Vectors and residual of a fast in-memory re-encode of the sampled frames, each with its predecessor."""

    name = "reencode"
    method = "x264 veryfast"

    def __init__(self, options: SignalOptions) -> None:
        self.options = options

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame, SignalMaps]]:
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
        decoded = decode_h264(encode_h264(pair))
        last = decoded[-1]
        plane = luma(last)
        rows_B8 = frame_vectors(last)
        cells = paint_cells(np.zeros((0, 8), np.int32) if rows_B8 is None else rows_B8, *plane.shape)
        references = np.stack([luma(f) for f in decoded[:-1]]) if len(decoded) > 1 else plane[None][:0]
        gate = np.full(cells.shape[:2], 2.0, np.float32)
        residual = prediction_error(plane, references, len(references), cells, gate, self.options.intra != "zero")
        motion = None if rows_B8 is None else paint_motion(rows_B8, height, width)
        return SignalMaps(motion, np.ascontiguousarray(residual[:height, :width]), picture_type(last))


def even_yuv420(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The frame as 8-bit yuv420p, uint8 [3/2 H, W], odd sides padded by repeating the last row or column."""
    if frame.width % 2 or frame.height % 2:
        rgb = frame.reformat(format="rgb24").to_ndarray()
        rgb = np.pad(rgb, ((0, frame.height % 2), (0, frame.width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    if frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p")
    return frame.to_ndarray()


def encode_h264(pictures: Sequence[NDArray[np.uint8]]) -> list[av.Packet]:
    """One H.264 packet per picture (yuv420p, uint8 [3/2 H, W]): the first an I picture, the others P."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures[0].shape[0] * 2 // 3, pictures[0].shape[1]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1
    encoder.options = dict(_X264)
    packets: list[av.Packet] = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def decode_h264(packets: Sequence[av.Packet]) -> list[av.VideoFrame]:
    """Decode packets of one stream in order, with motion vectors."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.options = {"flags2": "+export_mvs"}
    frames: list[av.VideoFrame] = []
    for packet in packets:
        frames += decoder.decode(packet)
    return frames + decoder.decode(None)
