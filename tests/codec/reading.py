"""What the tests of video reading share: decoding with PyAV alone to compare with, and clips that tell their frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from ov_model.codec.video import Video, rgb

PYRAMID = "bframes=3:b-adapt=0:b-pyramid=normal:keyint=10:min-keyint=10:scenecut=0:ref=4"


def x264(params: str) -> dict[str, Any]:
    return {"options": {"x264-params": params}}


def pixels(frame: VideoFrame) -> tuple[bytes, ...]:
    """The planes without the padding at the end of their rows, which decoders leave undefined."""
    wide = 2 if frame.format.components[0].bits > 8 else 1
    return tuple(
        np.frombuffer(bytes(cast(Any, plane)), np.uint8)
        .reshape(-1, plane.line_size)[: plane.height, : plane.width * wide]
        .tobytes()
        for plane in frame.planes
    )


def decode_plainly(path: Path) -> list[tuple[bytes, ...]]:
    """Every frame's pixels by PyAV alone, from the first packet to the last, errors passed over."""
    frames: list[VideoFrame] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                frames.extend(packet.decode())
            except FFmpegError:
                continue
    return [pixels(frame) for frame in frames]


def decode_ours(clip: Video, wanted: Sequence[int]) -> list[tuple[int, tuple[bytes, ...]]]:
    return [(i, pixels(frame)) for i, frame in clip.frames(wanted)]


def gray_levels(clip: Video, wanted: Sequence[int]) -> list[int]:
    """Which frame of the "gray" pattern each decoded frame is (its flat value is 16 + 3t in full-range RGB)."""
    return [round((float(rgb(frame).mean()) - 16) / 3) for _, frame in clip.frames(wanted)]
