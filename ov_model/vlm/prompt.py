"""A conversation -> token ids and labels, by the tokenizer's own chat template or as a plain caption (REFERENCE 11).

The template is rendered twice: with the turns, and with a mark in place of each. The marks say which characters are the
template's and which a turn's, so every answer is found whatever the template looks like, and what a user typed is never
taken for `<|im_end|>` or another control token: turns are tokenized as text, the template's own text with its controls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ov_model.errors import BadRecord, TooLong, UsageError, VisualMismatch

IMAGE_TOKEN_INDEX = -200
IGNORE_INDEX = -100
IMAGE_PLACEHOLDER = "<image>"
DEFAULT_SYSTEM = "You are a helpful assistant."
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
PLAIN_END = "\n"

Template = Literal["chatml", "plain"]
Turns = Sequence[Mapping[str, Any]]


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


@dataclass
class _Tokens:
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], supervised: int = 0) -> None:
        """Append tokens, the first `supervised` of them with labels."""
        self.ids += ids
        self.labels += [*ids[:supervised], *[IGNORE_INDEX] * (len(ids) - supervised)]


def build_sample(
    conversations: Turns,
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
        template: "chatml" is the tokenizer's own chat template; "plain" is pictures, caption and a newline, which ends
            the answer there; the human's words are left out.
        max_length: longest text + visual tokens; cut at the end, never inside a visual block.
        one_block: the pictures are one video (`VisualSample.is_video`), which stays or goes as a whole.

    Raises:
        VisualMismatch: the placeholders are not as many as the pictures.
        TooLong: cutting would leave a part of a video, or no answer.
        BadRecord: turns that are no conversation.
        UsageError: the tokenizer has no chat template, or one that changes what it is given.
    """
    messages = _messages(conversations, sample_id)
    if messages[-1]["role"] != "assistant":
        raise BadRecord(f"sample {sample_id!r}: the last turn is not an answer (from: gpt)")
    tokens = _tokens(messages, tokenizer, template, system, sample_id, answer=True)
    _check_count(tokens.ids, len(tokens_per_image), sample_id)
    return _cut(tokens, tokens_per_image, max_length, one_block, sample_id)


def build_prompt(
    conversations: Turns,
    tokenizer: Any,
    num_images: int,
    *,
    template: Template = "chatml",
    system: str = DEFAULT_SYSTEM,
    sample_id: str = "",
) -> list[int]:
    """Token ids up to where the answer begins, for generation; an answer at the end of the turns is left out.

    Raises:
        VisualMismatch, BadRecord, UsageError: as for `build_sample`.
    """
    messages = _messages(conversations, sample_id)
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    tokens = _tokens(messages, tokenizer, template, system, sample_id, answer=False)
    _check_count(tokens.ids, num_images, sample_id)
    return tokens.ids


def _messages(conversations: Turns, sample_id: str) -> list[dict[str, str]]:
    messages = []
    for number, turn in enumerate(conversations):
        speaker, text = turn.get("from"), turn.get("value")
        if speaker not in ROLES or not isinstance(text, str):
            raise BadRecord(
                f"sample {sample_id!r}: turn {number} is from {speaker!r} with a value of type {type(text).__name__}; "
                f"use from: {' | '.join(ROLES)} and a text"
            )
        messages.append({"role": ROLES[speaker], "content": text})
    if not any(message["role"] == "user" for message in messages):
        raise BadRecord(f"sample {sample_id!r}: no human turn among {len(messages)}")
    return messages


def _check_count(ids: Sequence[int], num_images: int, sample_id: str) -> None:
    found = ids.count(IMAGE_TOKEN_INDEX)
    if found != num_images:
        raise VisualMismatch(
            f"sample {sample_id!r}: {found} {IMAGE_PLACEHOLDER} in the human turns for {num_images} pictures; "
            "there must be one for each"
        )


def _tokens(
    messages: list[dict[str, str]], tokenizer: Any, template: Template, system: str, sample_id: str, *, answer: bool
) -> _Tokens:
    if template == "plain":
        return _plain(messages, tokenizer, sample_id)
    if template != "chatml":
        raise UsageError(f"prompt template is {template!r}; use chatml or plain")
    if messages[0]["role"] != "system" and system:
        messages = [{"role": "system", "content": system}, *messages]
    tokens, after_answer = _Tokens(), False
    for text, role in _pieces(messages, tokenizer, sample_id, generation_prompt=not answer):
        if role is None:
            ids = _ids(tokenizer, text, controls=True)
            tokens.add(ids, _end_of_turn(ids, tokenizer) if after_answer else 0)
        elif role == "user":
            tokens.add(_with_images(tokenizer, text))
        else:
            ids = _ids(tokenizer, text)
            tokens.add(ids, len(ids) if role == "assistant" else 0)
        after_answer = role == "assistant"
    return tokens


def _ids(tokenizer: Any, text: str, *, controls: bool = False) -> list[int]:
    if not text:
        return []
    return tokenizer(text, add_special_tokens=False, split_special_tokens=not controls)["input_ids"]


def _with_images(tokenizer: Any, text: str) -> list[int]:
    first, *rest = text.split(IMAGE_PLACEHOLDER)
    ids = _ids(tokenizer, first)
    for part in rest:
        ids += [IMAGE_TOKEN_INDEX, *_ids(tokenizer, part)]
    return ids


def _end_of_turn(ids: Sequence[int], tokenizer: Any) -> int:
    """1 where the template's text after an answer begins with a control token, which the model must learn to say."""
    controls = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return int(bool(ids) and ids[0] in controls | set(tokenizer.all_special_ids))


def _pieces(
    messages: list[dict[str, str]], tokenizer: Any, sample_id: str, *, generation_prompt: bool
) -> list[tuple[str, str | None]]:
    """The rendered conversation cut in the template's own text (role None) and the turns' (their role)."""
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("the tokenizer has no chat template; give it one, or use the prompt template plain")

    def render(contents: Sequence[str]) -> str:
        turns = [{**message, "content": text} for message, text in zip(messages, contents, strict=True)]
        try:
            return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
        except Exception as error:  # jinja's own errors: the template refuses the order of turns
            raise BadRecord(f"sample {sample_id!r}: the chat template refuses the conversation: {error}") from error

    contents = [message["content"] for message in messages]
    mark = "turn"
    while any(mark in text for text in contents):
        mark += "n"
    marked = render([f"[{mark}{number}]" for number in range(len(messages))])
    parts = re.split(rf"\[{mark}(\d+)\]", marked)
    order = [int(number) for number in parts[1::2]]
    trimmed = [text.strip() for text in contents]
    for texts in (contents, trimmed):
        pieces: list[tuple[str, str | None]] = [(parts[0], None)]
        for number, literal in zip(order, parts[2::2], strict=True):
            pieces += [(texts[number], messages[number]["role"]), (literal, None)]
        if order == list(range(len(messages))) and "".join(text for text, _ in pieces) == render(contents):
            return pieces
    raise UsageError(
        f"sample {sample_id!r}: the tokenizer's chat template drops, repeats or changes turns, so their tokens cannot "
        "be told from its own; use a template that prints every turn as it is"
    )


def _plain(messages: list[dict[str, str]], tokenizer: Any, sample_id: str) -> _Tokens:
    messages = [message for message in messages if message["role"] != "system"]
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["user", "assistant"]):
        raise BadRecord(f"sample {sample_id!r}: turns are {roles}; the template plain takes a picture and its caption")
    tokens = _Tokens()
    bos = tokenizer.bos_token_id
    tokens.add([bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else [])
    tokens.add([IMAGE_TOKEN_INDEX] * messages[0]["content"].count(IMAGE_PLACEHOLDER))
    for message in messages[1:]:
        ids = _ids(tokenizer, message["content"] + PLAIN_END)
        tokens.add(ids, len(ids))
    return tokens


def _cut(
    tokens: _Tokens, tokens_per_image: Sequence[int], max_length: int | None, one_block: bool, sample_id: str
) -> Prompt:
    """The longest head that fits, whole pictures only."""
    sizes = iter(tokens_per_image)
    widths = [next(sizes) if token == IMAGE_TOKEN_INDEX else 1 for token in tokens.ids]
    total, length, kept = sum(widths), 0, len(widths)
    for place, width in enumerate(widths):
        if max_length is not None and length + width > max_length:
            kept = place
            break
        length += width
    ids, labels = tokens.ids[:kept], tokens.labels[:kept]
    num_images = ids.count(IMAGE_TOKEN_INDEX)
    if one_block and num_images < len(tokens_per_image):
        raise TooLong(
            f"sample {sample_id!r}: the {sum(tokens_per_image)} visual tokens of its video and the text before them do "
            f"not fit in {max_length} tokens; raise the maximum length above {total}"
        )
    if all(label == IGNORE_INDEX for label in labels):
        raise TooLong(
            f"sample {sample_id!r}: no token of an answer is left in {max_length or total} of {total} tokens; "
            "raise the maximum length"
        )
    return Prompt(ids, labels, num_images, length, total - length)
