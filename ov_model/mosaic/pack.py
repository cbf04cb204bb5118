"""Chosen patches and frames -> N mosaic images. Arrays in, arrays out.

Shapes: S square side · P patch side · G patches a side · N mosaics · K = N*G*G rows (t, h, w).
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.energy import SquareMap
from ov_model.errors import UsageError
from ov_model.geometry import Geometry

LAYOUTS = ("time_spatial", "spatial")


def sort_positions(pos_K3: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32 [K, 3] sorted by (t, h, w): the order in which rows are cut into mosaics."""
    return pos_K3[np.lexsort((pos_K3[:, 2], pos_K3[:, 1], pos_K3[:, 0]))]


def fit_content(frame_HWC: NDArray[np.uint8], square: SquareMap) -> NDArray[np.uint8]:
    """uint8 [Hn, Wn, 3]: a frame (display orientation) at its size inside the square, OpenCV's INTER_LINEAR."""
    return np.asarray(cv2.resize(frame_HWC, (square.Wn, square.Hn), interpolation=cv2.INTER_LINEAR), np.uint8)


def pad_to_square(content_HWC: NDArray[np.uint8], square: SquareMap) -> NDArray[np.uint8]:
    """uint8 [S, S, 3]: the content centered on black."""
    frame = np.zeros((square.out_size, square.out_size, 3), np.uint8)
    frame[square.pad_top : square.pad_top + square.Hn, square.pad_left : square.pad_left + square.Wn] = content_HWC
    return frame


def pack_mosaics(
    frames: Iterable[tuple[NDArray[np.intp], NDArray[np.uint8]]],
    pos_K3: NDArray[np.int32],
    geometry: Geometry,
    layout: str = "time_spatial",
) -> NDArray[np.uint8]:
    """uint8 [N, S, S, 3]: the mosaics of one video.

    Args:
        frames: pairs (sampled-frame indices t that show this picture, square frame uint8 [S, S, 3]); every t that
            occurs in the positions must come once.
        pos_K3: rows sorted by (t, h, w); row j fills tile j % (G*G) of mosaic j // (G*G).
        layout: `time_spatial` fills tiles in row order; `spatial` pastes each patch at its own (h, w), later t over
            earlier.
    Raises:
        UsageError: K is not N*G*G, or an unknown layout.
    """
    g, p, n = geometry.grid, geometry.patch_size, geometry.num_images
    if layout not in LAYOUTS:
        raise UsageError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
    if len(pos_K3) != geometry.num_patches:
        raise UsageError(
            f"{len(pos_K3)} positions do not fill {n} mosaics of {geometry.patches_per_image} patches "
            f"({geometry.num_patches} needed); run stage 1 with padding_policy zero or repeat"
        )
    t, h, w = pos_K3[:, 0], pos_K3[:, 1], pos_K3[:, 2]
    row = np.arange(len(pos_K3))
    tile = row % geometry.patches_per_image if layout == "time_spatial" else h * g + w
    image = row // geometry.patches_per_image
    start = np.searchsorted(t, np.arange(geometry.sequence_length + 1))
    tiles = np.zeros((n, g, p, g, p, 3), np.uint8)
    for indices, frame in frames:
        source = frame.reshape(g, p, g, p, 3)
        for index in indices:
            rows = slice(start[index], start[index + 1])
            tiles[image[rows], tile[rows] // g, :, tile[rows] % g] = source[h[rows], :, w[rows]]
    return tiles.reshape(n, g * p, g * p, 3)
