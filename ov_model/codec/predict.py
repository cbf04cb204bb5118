"""The residual estimated from pixels: a frame minus its motion-compensated prediction from its neighbors.

For codecs whose vectors FFmpeg exports and whose coefficients are not read here (MPEG-4 part 2, MPEG-2, interlaced and
4:4:4 H.264). Approximate where the codec does more than bilinear prediction from the nearest reference frames: vectors
of interlaced pictures are taken as those of frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ov_model.codec.kernels import CELL, paint_cells, paint_motion, prediction_error
from ov_model.codec.maps import (
    SignalMaps,
    SignalOptions,
    distinct,
    frame_vectors,
    picture_type,
    same_size,
)
from ov_model.codec.pixels import side_data
from ov_model.codec.video import Video, luma

_GATE = 0.25
# The quantizer step that dead zone `fixed` assumes: H.264's at QP 28.
_FIXED_STEP = 16.0
_ENC_PARAMS_HEADER = np.dtype(
    [("nb", "<u4"), ("pad", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("type", "<i4"), ("qp", "<i4")]
)
_H264_QP, _MPEG2_QP = 1, 2
# FFmpeg exports no vectors with the last frame that it is asked for; such a frame is predicted as not moving.
_LAST_WITHOUT_VECTORS = ("mpeg1video", "mpeg2video")
_NO_VECTORS = np.zeros((0, 8), np.int32)


@dataclass(frozen=True, eq=False)
class _Sampled:
    index: int
    frame: VideoFrame
    luma_HW: NDArray[np.uint8]
    past: list[int]
    later: list[int]


class PredictedResidual:
    """Prediction error with a dead zone that stands for the quantizer."""

    name = "residual"
    method = "prediction error"

    def __init__(self, options: SignalOptions) -> None:
        self.options = options

    def measure(self, video: Video, frame_ids: Sequence[int]) -> Iterator[tuple[int, VideoFrame, SignalMaps]]:
        sampled = distinct(frame_ids)
        uses = {i: references_of(video, i, self.options.references) for i in sampled}
        last_use: dict[int, int] = {}
        for i in sampled:
            for j in (*uses[i][0], *uses[i][1]):
                last_use[j] = i
        wanted = sorted({*sampled, *last_use})
        frames = video.frames(wanted, motion_vectors=True, quantizers=self.options.dead_zone == "qp")
        lumas: dict[int, NDArray[np.uint8]] = {}
        waiting: list[_Sampled] = []
        for j, frame in same_size(video, frames):
            plane = luma(frame)
            if j in last_use:
                lumas[j] = plane
            if j in uses:
                waiting.append(_Sampled(j, frame, plane, *uses[j]))
            while waiting and max(waiting[0].later, default=0) <= j:
                ready = waiting.pop(0)
                yield ready.index, ready.frame, self._maps(ready, lumas, video.info.codec)
                for old in [k for k in lumas if last_use[k] <= ready.index]:
                    del lumas[old]

    def _maps(self, sampled: _Sampled, lumas: dict[int, NDArray[np.uint8]], codec: str) -> SignalMaps:
        height, width = sampled.luma_HW.shape
        picture = picture_type(sampled.frame)
        rows_B8 = frame_vectors(sampled.frame)
        motion = None if rows_B8 is None else paint_motion(rows_B8, height, width)
        cells = paint_cells(_NO_VECTORS if rows_B8 is None else rows_B8, height, width)
        lost_vectors = rows_B8 is None and picture != "I" and codec in _LAST_WITHOUT_VECTORS
        if lost_vectors:
            cells[:, :, 0, 2] = 1
        predicted = rows_B8 is not None or lost_vectors
        neighbors = [lumas[j] for j in (*sampled.past, *sampled.later)] if predicted else []
        references_FHW = np.stack(neighbors) if neighbors else sampled.luma_HW[None][:0]
        past = len(sampled.past) if neighbors else 0
        gate_RC = gate_of(sampled.frame, cells.shape[0], cells.shape[1], self.options.dead_zone)
        residual = prediction_error(sampled.luma_HW, references_FHW, past, cells, gate_RC, self.options.intra != "zero")
        return SignalMaps(motion, residual, picture)


def gate_of(frame: VideoFrame, rows: int, columns: int, dead_zone: str) -> NDArray[np.float32]:
    """Mean error above which each 8x8 cell counts: float32 [rows, columns]."""
    if dead_zone == "none":
        return np.zeros((rows, columns), np.float32)
    step = quantizer_steps(frame, rows, columns) if dead_zone == "qp" else None
    return np.float32(_GATE) * (np.full((rows, columns), _FIXED_STEP, np.float32) if step is None else step)


def contrast_of(frame: VideoFrame, options: SignalOptions) -> NDArray[np.uint8]:
    """Local contrast |Y - 4x4 mean| of the whole frame through the dead zone: uint8 [H, W]."""
    luma_HW = luma(frame)
    cells = paint_cells(_NO_VECTORS, *luma_HW.shape)
    gate_RC = gate_of(frame, cells.shape[0], cells.shape[1], options.dead_zone)
    return prediction_error(luma_HW, luma_HW[None][:0], 0, cells, gate_RC, True)


def references_of(video: Video, i: int, count: int) -> tuple[list[int], list[int]]:
    """Frames that frame i may refer to, nearest first: up to `count` shown before it, up to `count` shown after it."""
    index = video.index
    near = np.arange(max(0, i - 16 * count), min(len(index), i + 16 * count + 1))
    near = near[index.reference_N[near] & (index.decode_N[near] < index.decode_N[i])]
    return near[near < i][::-1][:count].tolist(), near[near > i][:count].tolist()


def quantizer_steps(frame: VideoFrame, rows: int, columns: int) -> NDArray[np.float32] | None:
    """Each 8x8 cell's quantizer step, float32 [rows, columns], by FFmpeg's per-block parameters; None without them."""
    data = side_data(frame, "VIDEO_ENC_PARAMS")
    if data is None:
        return None
    raw = bytes(data)
    head = np.frombuffer(raw, _ENC_PARAMS_HEADER, 1)[0]
    if head["type"] not in (_H264_QP, _MPEG2_QP):
        return None
    qp_RC = np.full((rows, columns), int(head["qp"]), np.float32)
    if head["nb"]:
        blocks = np.frombuffer(raw, np.uint8, int(head["nb"]) * int(head["size"]), int(head["offset"]))
        blocks = blocks.reshape(int(head["nb"]), int(head["size"]))[:, :20].copy().view("<i4")
        x, y, side, delta = blocks[:, 0] // CELL, blocks[:, 1] // CELL, blocks[:, 2], blocks[:, 4]
        for dy in range(max(int(side[0]) // CELL, 1)):
            for dx in range(max(int(side[0]) // CELL, 1)):
                inside = (y + dy < rows) & (x + dx < columns)
                qp_RC[y[inside] + dy, x[inside] + dx] = int(head["qp"]) + delta[inside]
    if head["type"] == _MPEG2_QP:
        return 2 * qp_RC
    return np.exp2((qp_RC - 4) / 6).astype(np.float32)
