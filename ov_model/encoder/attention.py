"""Attention through transformers' interface, within each sequence of a batch or of a pack.

Shapes: B samples, H heads, L tokens (of all sequences in a pack, where B is 1), D channels of a head.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def choose_attention(device: torch.device | str, dtype: torch.dtype) -> str:
    """The quickest implementation that this machine has.

    flash_attention_2 on CUDA in half precision where flash-attn can be imported (the extra `flash`), else sdpa.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    if torch.device(device).type == "cuda" and half and importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    return "sdpa"


@dataclass(frozen=True)
class Run:
    """Neighboring sequences of equal length: tokens start .. start + count * length."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length


@dataclass(frozen=True, eq=False)
class Segments:
    """How a pack of sequences of any length lies along one axis, with nothing between them.

    Args:
        lengths: tokens of each sequence.
        offsets: int32 [len(lengths) + 1] on the device, where each begins; what flash attention's varlen kernel reads.
    """

    lengths: tuple[int, ...]
    offsets: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        return cls(tuple(lengths), ends)

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def runs(self) -> list[Run]:
        found, start = [], 0
        for length, group in groupby(self.lengths):
            found.append(Run(start, sum(1 for _ in group), length))
            start = found[-1].stop
        return found

    def mask(self) -> torch.Tensor:
        """bool [L,L], True within a sequence: the block-diagonal mask that `attend` never has to build."""
        owner_L = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))
        return owner_L[:, None] == owner_L[None, :]


def eager_attention(
    module: nn.Module,
    query_BHLD: torch.Tensor,
    key_BHLD: torch.Tensor,
    value_BHLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention spelled out, softmax in float32; returns [B,L,H,D] and the weights."""
    score = query_BHLD @ key_BHLD.transpose(-1, -2) * scaling
    if attention_mask is not None:
        score = score.masked_fill(~attention_mask, torch.finfo(score.dtype).min)
    weight = score.softmax(dim=-1, dtype=torch.float32).to(query_BHLD.dtype)
    weight = nn.functional.dropout(weight, p=dropout, training=module.training)
    return (weight @ value_BHLD).transpose(1, 2), weight


def attend(
    module: nn.Module,
    implementation: str,
    query_BHLD: torch.Tensor,
    key_BHLD: torch.Tensor,
    value_BHLD: torch.Tensor,
    segments: Segments | None,
    **options: Any,
) -> torch.Tensor:
    """Attention of every token to the tokens of its own sequence, [B,L,H,D].

    Without segments each sample is one sequence. A pack (B = 1) goes through flash attention's varlen kernel where that
    is the implementation. Elsewhere its block-diagonal mask is applied block by block, neighbors of equal length as one
    batch: no [L,L] mask in memory and no work outside the blocks.
    """
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
    if segments is None:
        return interface(module, query_BHLD, key_BHLD, value_BHLD, None, **options)[0]
    if "flash" in implementation:
        varlen = {f"cu_seq_lens_{side}": segments.offsets for side in "qk"}
        varlen |= {f"max_length_{side}": segments.longest for side in "qk"}
        return interface(module, query_BHLD, key_BHLD, value_BHLD, None, **options, **varlen)[0]
    blocks = []
    for run in segments.runs:
        query, key, value = (
            x[0, :, run.start : run.stop].unflatten(1, (run.count, run.length)).transpose(0, 1)
            for x in (query_BHLD, key_BHLD, value_BHLD)
        )
        blocks.append(interface(module, query, key, value, None, **options)[0].flatten(0, 1))
    return torch.cat(blocks)[None]
