"""Samples of every kind for tiny models, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ov_model.vlm.images import VisualBatch, VisualSample, text_sample
from ov_model.vlm.prompt import IGNORE_INDEX, IMAGE_TOKEN_INDEX

IMAGE = IMAGE_TOKEN_INDEX


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codec(seed: int = 0, sample_id: str = "codec") -> VisualSample:
    """Two mosaics of 2 x 3 tiles with positions of their own."""
    positions = torch.randint(0, 8, (12, 3), generator=torch.Generator().manual_seed(seed))
    return VisualSample(sample_id, "codec", tuple(noise(2, 3, 28, 42, seed=seed)), positions)


def frames(seed: int = 1) -> VisualSample:
    cells = torch.cartesian_prod(torch.tensor([0, 31, 63]), torch.arange(2), torch.arange(2))
    return VisualSample("frames", "frames", tuple(noise(3, 3, 28, 28, seed=seed)), cells)


def pictures(*sizes: tuple[int, int], seed: int = 2) -> VisualSample:
    return VisualSample("pictures", "image", tuple(noise(3, *size, seed=seed) for size in sizes))


def every_kind() -> list[tuple[list[int], VisualSample]]:
    """Rows of different lengths, each with what it shows."""
    return [
        ([9, IMAGE, 8, IMAGE, 8, 40, 41, 42], codec()),
        ([9, IMAGE, IMAGE, IMAGE, 50, 51], frames()),
        ([9, IMAGE, 8, 60, 61], pictures((42, 28))),
        ([9, IMAGE, 8, IMAGE, 61, 62, 63], pictures((14, 14), (28, 56))),
        ([9, 70, 71], text_sample("text")),
    ]


def batched(rows: Sequence[tuple[list[int], VisualSample]], answer: int = 2, *, left: bool = False) -> dict[str, Any]:
    """Padded ids, mask, labels (the last tokens of each row) and the visual batch."""
    longest = max(len(ids) for ids, _ in rows)
    table: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for ids, _ in rows:
        pad = longest - len(ids)
        labels = [IGNORE_INDEX] * (len(ids) - answer) + ids[len(ids) - answer :]
        for name, values, filler in (
            ("input_ids", ids, 0),
            ("attention_mask", [1] * len(ids), 0),
            ("labels", labels, IGNORE_INDEX),
        ):
            padding = [filler] * pad
            table[name].append(padding + values if left else values + padding)
    return {
        **{name: torch.tensor(values) for name, values in table.items()},
        "images": VisualBatch(tuple(sample for _, sample in rows)),
    }
