"""Decoded frames as arrays: stored luma, RGB as the published mosaics have it, rotation for display."""

from __future__ import annotations

from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

# PyAV 17 can keep swscale on one thread, which is faster on frames of this size and does not oversubscribe cores.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".", maxsplit=1)[0]) >= 17 else {}


def luma(frame: VideoFrame) -> NDArray[np.uint8]:
    """The luma plane as stored, never range-converted; uint8 [H, W].

    More than 8 bits are rounded to 8. RGB and palette frames, which store no luma, are converted by swscale.
    """
    layout = frame.format
    if layout.is_rgb or layout.has_palette:
        frame = frame.reformat(format="gray")
    elif not layout.is_planar and layout.name != "gray" and not layout.name.startswith(("gray1", "gray9")):
        frame = frame.reformat(format="yuv444p")
    layout = frame.format
    plane, bits = frame.planes[0], layout.components[0].bits
    stored = np.frombuffer(memoryview(cast(Any, plane)), np.uint8).reshape(-1, plane.line_size)[: frame.height]
    if bits <= 8:
        return stored[:, : frame.width].copy()
    rows = stored.view(">u2" if layout.is_big_endian else "<u2")[:, : frame.width]
    # P010 and its kin keep their bits at the top of the 16.
    shift = 8 if layout.name[:2] in ("p0", "p2", "p4") else bits - 8
    wide = rows.astype(np.uint32) + (1 << (shift - 1))
    return np.minimum(wide >> shift, 255).astype(np.uint8)


def side_data(frame: VideoFrame, kind: str) -> Any | None:
    """What the decoder exported beside a frame (MOTION_VECTORS, VIDEO_ENC_PARAMS), or None.

    Not through `frame.side_data`: that ties frame and container into a cycle, and frames pile up until Python's
    collector runs (hundreds of MB at 720p).
    """
    return cast(Any, SideDataContainer)(frame).get(kind)


def rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """The frame in RGB by the BT.601 matrix, whatever its tag, and the tagged range; uint8 [H, W, 3], unrotated.

    The published mosaics were made so: with cv2.resize and Pillow's JPEG it gives them byte for byte.
    """
    converted = frame.reformat(format="rgb24", src_colorspace="ITU601", **_ONE_THREAD)
    return cast(NDArray[np.uint8], converted.to_ndarray())


def rotate(array: NDArray, rotation: int) -> NDArray:
    """The array [H, W, ...] turned clockwise by 0, 90, 180 or 270 degrees, contiguous."""
    if rotation % 90:
        raise ValueError(f"rotation is {rotation}; it must be a multiple of 90 degrees")
    return np.ascontiguousarray(np.rot90(array, -(rotation // 90)))
