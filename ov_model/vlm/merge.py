"""Put the visual tokens where the placeholders are: which token of a row is text, which is visual.

Shapes: B rows, L tokens after the placeholders are spread, the longest row's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from ov_model.errors import VisualMismatch
from ov_model.vlm.images import VisualBatch, VisualSample
from ov_model.vlm.prompt import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class Merged:
    """Rows with a place for every visual token.

    Args:
        ids_BL: int64, 0 at visual tokens and padding.
        visual_BL: bool; row by row, its True are the features in the order of the batch.
        mask_BL: int64, 1 where there is a token.
        labels_BL: int64, `IGNORE_INDEX` at visual tokens and padding.
    """

    ids_BL: torch.Tensor
    visual_BL: torch.Tensor
    mask_BL: torch.Tensor
    labels_BL: torch.Tensor | None

    @property
    def padded(self) -> bool:
        return not bool(self.mask_BL.all())

    def position_ids(self) -> torch.Tensor:
        """int64 [B,L], counted from the first token of each row, whichever side is padded."""
        return (self.mask_BL.cumsum(dim=1) - 1).clamp(min=0)


def check_sample(sample: VisualSample, placeholders: int) -> None:
    """Raise VisualMismatch where a row has not one placeholder for each picture of its sample."""
    if placeholders != len(sample.pixels):
        raise VisualMismatch(
            f"sample {sample.sample_id!r}: {placeholders} image placeholders for {len(sample.pixels)} pictures "
            f"of kind {sample.kind!r}; there must be one for each"
        )


def merge(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    images: VisualBatch,
    image_token: int,
    padding_side: Literal["left", "right"] = "right",
) -> Merged:
    """Spread each placeholder over the tokens of its picture and pad the rows again.

    Args:
        input_ids, attention_mask, labels: [B,L0], padded on either side.

    Raises:
        VisualMismatch: rows and samples, or placeholders and pictures, are not as many.
    """
    if len(images) != len(input_ids):
        names = ", ".join(repr(sample.sample_id) for sample in images)
        raise VisualMismatch(f"{len(input_ids)} rows for {len(images)} samples ({names}); there must be one for each")
    ids_rows, visual_rows, label_rows = [], [], []
    for row, sample in enumerate(images):
        kept = slice(None) if attention_mask is None else attention_mask[row].bool()
        ids = input_ids[row][kept]
        placeholder = ids == image_token
        check_sample(sample, int(placeholder.sum()))
        repeats = torch.ones_like(ids)
        repeats[placeholder] = torch.tensor(sample.tokens_per_image, dtype=ids.dtype, device=ids.device)
        ids_rows.append(ids.masked_fill(placeholder, 0).repeat_interleave(repeats))
        visual_rows.append(placeholder.repeat_interleave(repeats))
        if labels is not None:
            row_labels = labels[row][kept].masked_fill(placeholder, IGNORE_INDEX)
            label_rows.append(row_labels.repeat_interleave(repeats))

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=padding_side)

    return Merged(
        ids_BL=pad(ids_rows, 0),
        visual_BL=pad(visual_rows, 0),
        mask_BL=pad([torch.ones_like(ids) for ids in ids_rows], 0),
        labels_BL=pad(label_rows, IGNORE_INDEX) if labels is not None else None,
    )
