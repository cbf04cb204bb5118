"""A conversation -> token ids and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

IMAGE_TOKEN_INDEX = -200
IGNORE_INDEX = -100
IMAGE_PLACEHOLDER = "<image>"
DEFAULT_SYSTEM = "You are a helpful assistant."
Template = Literal["chatml", "plain"]


@dataclass(frozen=True)
class Prompt:
    """Token ids with one `IMAGE_TOKEN_INDEX` per picture, and labels.

    Args:
        input_ids, labels: of the same length; labels are `IGNORE_INDEX` but on the answers' tokens.
        num_images: pictures that are left; use `VisualSample.first(num_images)` when fewer than before.
        length: text tokens + visual tokens, what the language model reads.
        cut: tokens that were cut off, visual ones included.
    """

    input_ids: list[int]
    labels: list[int]
    num_images: int
    length: int
    cut: int


def build_sample(
    conversations: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    tokens_per_image: Sequence[int],
    *,
    template: Template = "chatml",
    max_length: int | None = None,
    one_block: bool = False,
    system: str = DEFAULT_SYSTEM,
    sample_id: str = "",
) -> Prompt:
    """A training sample: every answer's tokens, and the token that ends its turn, are supervised, nothing else is.

    Args:
        conversations: turns {from: system | human | gpt, value}; `<image>` in human turns.
        tokens_per_image: `VisualSample.tokens_per_image`.
        max_length: longest text + visual tokens; cut at the end, never inside a visual block.
        one_block: the pictures are one video (`VisualSample.is_video`), which stays or goes as a whole.

    Raises:
        VisualMismatch: the placeholders are not as many as the pictures.
        TooLong: cutting would leave a part of a video, or no answer.
        BadRecord: turns that are no conversation.
        UsageError: the tokenizer has no chat template, or one that changes what it is given.
    """
    raise NotImplementedError


def build_prompt(
    conversations: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    num_images: int,
    *,
    template: Template = "chatml",
    system: str = DEFAULT_SYSTEM,
    sample_id: str = "",
) -> list[int]:
    """Token ids up to where the answer begins, for generation; equal to the head of `build_sample`'s."""
    raise NotImplementedError
