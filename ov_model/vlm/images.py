"""What the samples of a batch show: pixels and positions, one `VisualSample` each, text-only ones included.

Shapes: N pictures, L tokens of a sample, H and W pixels (whole encoder patches).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ov_model.errors import VisualMismatch

Kind = Literal["codec", "frames", "image", "text"]
VIDEO_KINDS = ("codec", "frames")
KINDS = (*VIDEO_KINDS, "image", "text")


@dataclass(frozen=True, eq=False)
class VisualSample:
    """The pictures of one sample, in the order of its `<image>` placeholders.

    Args:
        sample_id: named by every error about this sample.
        kind: "codec" (mosaics) and "frames" are one video, so one sequence of the encoder; each picture of "image" is a
            sequence of its own; "text" has none.
        pixels: N tensors float [3,H,W], normalized (or one tensor [N,3,H,W]); of one size for a video, any for "image".
        patch: side of an encoder patch in pixels; a picture is H/patch * W/patch tokens.
        positions_L3: int64 [L,3], (t,h,w) of every token, pictures in order, raster order within one. For "codec" the
            mosaics' own; None means t = 0 and the picture's grid for "image", and is not allowed for a video.

    Raises:
        VisualMismatch: counts or shapes that do not fit, naming the sample.
    """

    sample_id: str
    kind: Kind
    pixels: tuple[torch.Tensor, ...] = ()
    positions_L3: torch.Tensor | None = None
    patch: int = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", tuple(self.pixels))
        if self.kind not in KINDS:
            raise self._mismatch(f"kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if (self.kind == "text") != (not self.pixels):
            raise self._mismatch(f"{len(self.pixels)} pictures in a sample of kind {self.kind!r}")
        for number, picture in enumerate(self.pixels):
            shape = tuple(picture.shape)
            if len(shape) != 3 or shape[0] != 3 or 0 in shape or shape[1] % self.patch or shape[2] % self.patch:
                raise self._mismatch(
                    f"picture {number} has shape {shape}; it must be [3,H,W], sides of whole {self.patch} px patches"
                )
        if self.kind in VIDEO_KINDS:
            sizes = {tuple(picture.shape) for picture in self.pixels}
            if len(sizes) > 1:
                raise self._mismatch(f"the pictures of a video differ in size: {sorted(sizes)}")
            if self.positions_L3 is None:
                raise self._mismatch(f"a sample of kind {self.kind!r} needs positions [{self.num_tokens},3]")
        if self.positions_L3 is not None:
            self._check_positions(self.positions_L3)

    def _check_positions(self, positions_L3: torch.Tensor) -> None:
        if tuple(positions_L3.shape) != (self.num_tokens, 3):
            raise self._mismatch(
                f"positions have shape {tuple(positions_L3.shape)}; {len(self.pixels)} pictures are "
                f"{self.num_tokens} tokens, so they must be [{self.num_tokens},3]"
            )
        if positions_L3.is_floating_point() or positions_L3.dtype == torch.bool:
            raise self._mismatch(f"positions are {positions_L3.dtype}; they must be whole numbers")
        if positions_L3.numel() and int(positions_L3.min()) < 0:
            raise self._mismatch(f"position {int(positions_L3.min())} is negative")

    def _mismatch(self, what: str) -> VisualMismatch:
        return VisualMismatch(f"sample {self.sample_id!r}: {what}")

    @property
    def tokens_per_image(self) -> list[int]:
        """Visual tokens of each picture: what each `<image>` placeholder stands for."""
        return [(p.shape[1] // self.patch) * (p.shape[2] // self.patch) for p in self.pixels]

    @property
    def num_tokens(self) -> int:
        return sum(self.tokens_per_image)

    @property
    def is_video(self) -> bool:
        """Whether all pictures are one block, which stays or goes as a whole."""
        return self.kind in VIDEO_KINDS

    def first(self, count: int) -> VisualSample:
        """Only the first pictures, after a prompt was cut (`Prompt.num_images`).

        Raises:
            VisualMismatch: a video would be cut in two, or there are fewer pictures.
        """
        if count == len(self.pixels):
            return self
        if not 0 <= count < len(self.pixels) or (self.is_video and count):
            raise self._mismatch(f"cannot keep {count} of the {len(self.pixels)} pictures of kind {self.kind!r}")
        positions = self.positions_L3
        return replace(
            self,
            kind=self.kind if count else "text",
            pixels=self.pixels[:count],
            positions_L3=None if positions is None or not count else positions[: sum(self.tokens_per_image[:count])],
        )

    def sequences(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """The encoder's sequences: pixels [3,T,H,W] and positions [L,3] or None; all of a video is one."""
        if self.is_video:
            yield torch.stack(self.pixels, dim=1), self.positions_L3
            return
        parts = [None] * len(self.pixels)
        if self.positions_L3 is not None:
            parts = self.positions_L3.split(self.tokens_per_image)
        for picture, positions in zip(self.pixels, parts, strict=True):
            yield picture[:, None], positions

    def _map(self, change: Any) -> VisualSample:
        moved = object.__new__(VisualSample)
        positions = None if self.positions_L3 is None else change(self.positions_L3)
        values = {**vars(self), "pixels": tuple(change(p) for p in self.pixels), "positions_L3": positions}
        for name, value in values.items():
            object.__setattr__(moved, name, value)
        return moved


def text_sample(sample_id: str) -> VisualSample:
    """A sample without pictures."""
    return VisualSample(sample_id, "text")


@dataclass(frozen=True, eq=False)
class VisualBatch:
    """The samples of a batch, row by row; kinds and sizes may differ."""

    samples: tuple[VisualSample, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(self.samples))

    @classmethod
    def of(cls, samples: Sequence[VisualSample] | VisualBatch) -> VisualBatch:
        return samples if isinstance(samples, VisualBatch) else cls(tuple(samples))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> VisualSample:
        return self.samples[row]

    def __iter__(self) -> Iterator[VisualSample]:
        return iter(self.samples)

    @property
    def num_tokens(self) -> int:
        return sum(sample.num_tokens for sample in self.samples)

    def to(
        self, device: torch.device | str, *, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> VisualBatch:
        """Pixels and positions on a device; `dtype` is for the pixels."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            wanted = dtype if tensor.is_floating_point() else None
            return tensor.to(device=device, dtype=wanted, non_blocking=non_blocking)

        return VisualBatch(tuple(sample._map(move) for sample in self.samples))

    def pin_memory(self, device: Any = None) -> VisualBatch:
        """Called by a DataLoader with `pin_memory=True`."""
        return VisualBatch(tuple(sample._map(lambda tensor: tensor.pin_memory()) for sample in self.samples))
