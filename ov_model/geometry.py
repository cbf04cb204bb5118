"""The numbers that tie frames, patches, mosaics and encoder together: one frozen value that travels in every meta."""

from __future__ import annotations

from dataclasses import dataclass

from ov_model.errors import UsageError


@dataclass(frozen=True)
class Geometry:
    """Sampled frames, mosaics per video, square side and patch side in pixels; encoder side and patch.

    Raises:
        UsageError: the square is not a whole number of patches, or a mosaic does not map onto the encoder's grid.
    Source: published defaults T 64, N 8, S 576, P 16, encoder 504 px with 14 px patches.
    """

    sequence_length: int = 64
    num_images: int = 8
    square_size: int = 576
    patch_size: int = 16
    encoder_patch: int = 14

    def __post_init__(self) -> None:
        for name in ("sequence_length", "num_images", "square_size", "patch_size", "encoder_patch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.square_size % self.patch_size:
            raise UsageError(
                f"square_size {self.square_size} is not a multiple of patch_size {self.patch_size}; "
                f"use {self.square_size // self.patch_size * self.patch_size}"
            )
        if self.num_images > self.sequence_length:
            raise UsageError(
                f"{self.num_images} mosaics need {self.num_images} frames' worth of patches, "
                f"but only {self.sequence_length} frames are sampled; raise sequence_length"
            )

    @property
    def grid(self) -> int:
        """Patches a side of the square (published: 36)."""
        return self.square_size // self.patch_size

    @property
    def patches_per_image(self) -> int:
        """Patches in one frame or mosaic (published: 1296)."""
        return self.grid * self.grid

    @property
    def num_patches(self) -> int:
        """Patches kept per video, K (published: 10 368)."""
        return self.num_images * self.patches_per_image

    @property
    def encoder_size(self) -> int:
        """Side in pixels that a mosaic is resized to for the encoder (published: 504)."""
        return self.grid * self.encoder_patch
