"""Pictures -> what the encoder reads: mosaics, plain frames, single images (plain, pad, anyres), CLIP-normalized.

Sizes come from the `Geometry`; all resizing is PIL's bicubic, in training and in evaluation alike (REFERENCE 10, 11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ov_model.errors import UsageError, VisualMismatch
from ov_model.geometry import Geometry
from ov_model.vlm.images import VisualSample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ANYRES_PINPOINTS = ((574, 1120), (1120, 574), (1120, 1120), (1694, 574), (574, 1694))

AspectRatio = Literal["anyres", "pad", "plain"]
Pinpoints = Sequence[tuple[int, int]]
_SCALE_3 = torch.tensor([1 / (255 * std) for std in CLIP_STD])[:, None, None]
_SHIFT_3 = torch.tensor([-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)])[:, None, None]


def normalize(image: Image.Image) -> torch.Tensor:
    """An RGB picture -> float32 [3,H,W], CLIP mean and deviation."""
    image_3HW = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return torch.addcmul(_SHIFT_3, image_3HW.to(torch.float32), _SCALE_3)


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """RGB, PIL bicubic; the same picture where the size is right already."""
    image = image.convert("RGB")
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def codec_sample(
    mosaics: Sequence[Image.Image], positions_K3: np.ndarray, geometry: Geometry, sample_id: str
) -> VisualSample:
    """A codec video: N mosaics and the position of every tile.

    Args:
        mosaics: N RGB pictures of `square_size`; resized to `encoder_size`, so that the grid stays.
        positions_K3: integers [N*grid*grid,3]; row j belongs to tile j of the mosaics in raster order.

    Raises:
        VisualMismatch: count, size or positions do not fit the geometry, naming the sample.
    """
    if len(mosaics) != geometry.num_images:
        raise VisualMismatch(f"sample {sample_id!r}: {len(mosaics)} mosaics; the geometry has {geometry.num_images}")
    side = geometry.square_size
    for number, mosaic in enumerate(mosaics):
        if mosaic.size != (side, side):
            found = "x".join(map(str, mosaic.size))
            raise VisualMismatch(f"sample {sample_id!r}: mosaic {number} is {found}; expected {side}x{side}")
    positions = np.asarray(positions_K3)
    limits = (geometry.sequence_length, geometry.grid, geometry.grid)
    if positions.shape != (geometry.num_patches, 3) or positions.dtype.kind not in "iu":
        raise VisualMismatch(
            f"sample {sample_id!r}: positions are {positions.dtype} {positions.shape}; "
            f"expected integers ({geometry.num_patches}, 3)"
        )
    if (positions < 0).any() or (positions >= limits).any():
        row = int(np.flatnonzero(((positions < 0) | (positions >= limits)).any(axis=1))[0])
        raise VisualMismatch(
            f"sample {sample_id!r}: position row {row} is {positions[row].tolist()}; (t,h,w) must be below {limits}"
        )
    size = geometry.encoder_size
    pixels = tuple(normalize(resized(mosaic, size, size)) for mosaic in mosaics)
    return VisualSample(
        sample_id, "codec", pixels, torch.from_numpy(positions.astype(np.int64)), geometry.encoder_patch
    )


def frame_times(count: int, sequence_length: int) -> np.ndarray:
    """The t of plain frames: trunc(linspace(0, T-1, count)); 8 of 64: 0 9 18 27 36 45 54 63."""
    return np.linspace(0, sequence_length - 1, count).astype(np.int64)


def frames_sample(frames: Sequence[Image.Image], geometry: Geometry, sample_id: str) -> VisualSample:
    """A video as plain frames, each resized to `encoder_size`, spread over the T time steps."""
    size = geometry.encoder_size
    pixels = tuple(normalize(resized(frame, size, size)) for frame in frames)
    times = torch.from_numpy(frame_times(len(frames), geometry.sequence_length))
    cells = torch.cartesian_prod(times, torch.arange(geometry.grid), torch.arange(geometry.grid))
    return VisualSample(sample_id, "frames", pixels, cells, geometry.encoder_patch)


def best_pinpoint(width: int, height: int, pinpoints: Pinpoints) -> tuple[int, int]:
    """The (width, height) that keeps most pixels of the picture and, among equals, wastes least area.

    Raises:
        UsageError: no pinpoints.
    """
    if not pinpoints:
        raise UsageError("image_grid_pinpoints is empty; anyres needs at least one (width, height)")

    def merit(pinpoint: tuple[int, int]) -> tuple[int, int]:
        scale = min(pinpoint[0] / width, pinpoint[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=merit)


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Aspect-preserving resize, centered on black."""
    image = image.convert("RGB")
    across, down = width / image.width, height / image.height
    if across < down:
        inner = (width, min(math.ceil(image.height * across), height))
    else:
        inner = (min(math.ceil(image.width * down), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(resized(image, *inner), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def square(image: Image.Image) -> Image.Image:
    """The picture centered on a black square of its longer side."""
    image = image.convert("RGB")
    side = max(image.size)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def prepare_image(
    image: Image.Image, geometry: Geometry, aspect: AspectRatio, pinpoints: Pinpoints = ANYRES_PINPOINTS
) -> Image.Image:
    """One picture at the size the encoder reads it in.

    "anyres": the best pinpoint, aspect kept, black around; "pad": a black square, then `encoder_size`; "plain":
    straight to `encoder_size`.

    Raises:
        UsageError: an unknown aspect, or a pinpoint that is not whole encoder patches.
    """
    size, patch = geometry.encoder_size, geometry.encoder_patch
    if aspect == "plain":
        return resized(image, size, size)
    if aspect == "pad":
        return resized(square(image), size, size)
    if aspect != "anyres":
        raise UsageError(f"image_aspect_ratio is {aspect!r}; use anyres, pad or plain")
    width, height = best_pinpoint(*image.size, pinpoints)
    if width % patch or height % patch:
        raise UsageError(f"pinpoint ({width}, {height}) is not whole patches of {patch} px")
    return fit(image, width, height)


def image_sample(
    images: Sequence[Image.Image],
    geometry: Geometry,
    sample_id: str,
    aspect: AspectRatio = "anyres",
    pinpoints: Pinpoints = ANYRES_PINPOINTS,
) -> VisualSample:
    """One or more single images, each with its own grid at t = 0."""
    pixels = tuple(normalize(prepare_image(image, geometry, aspect, pinpoints)) for image in images)
    return VisualSample(sample_id, "image", pixels, patch=geometry.encoder_patch)
