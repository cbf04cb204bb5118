"""A batch of prompts and pictures -> answers, or log-probabilities. What batches are made of changes no answer.

Shapes: B prompts, L tokens, S tokens of all continuations, V entries of the vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import StoppingCriteria, StoppingCriteriaList

from ov_model.errors import TooLong
from ov_model.eval.questions import GenerationOptions, Question
from ov_model.vlm import IGNORE_INDEX, IMAGE_TOKEN_INDEX, VisualBatch, VisualSample, build_prompt

IMAGE_LINE = "<image>"


@dataclass(frozen=True)
class Prompted:
    """A question ready for the model. `cut`: tokens of its text that were left out."""

    question: Question
    visual: VisualSample
    ids: list[int]
    cut: int = 0


class Prompts:
    """The tokenizer's chat template around N `<image>` lines, a newline and the question (REFERENCE.md section 11).

    Equal to `build_prompt` of that conversation, but `<image>` in lmms-eval's own text stays text. A text that does not
    fit loses its beginning: options and instruction stand at the end of a benchmark's question, and the pictures before
    it are never cut.
    """

    def __init__(self, tokenizer: Any, max_length: int | None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        turn = build_prompt([{"from": "human", "value": IMAGE_LINE}], tokenizer, 1)
        spaced = build_prompt([{"from": "human", "value": f" {IMAGE_LINE} "}], tokenizer, 1)
        self._trims = turn == spaced
        place = turn.index(IMAGE_TOKEN_INDEX)
        self._head, self._tail = turn[:place], turn[place + 1 :]

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and the control token that ends a turn of the template."""
        ends = [self.tokenizer.eos_token_id, *[t for t in self._tail[:1] if t in set(self.tokenizer.all_special_ids)]]
        return list(dict.fromkeys(token for token in ends if token is not None))

    def build(self, question: Question, visual: VisualSample) -> Prompted:
        """The token ids of a question, with room left for its answer.

        Raises:
            TooLong: pictures, template and answer alone do not fit; names the document.
        """
        text = question.context
        if self._trims:
            text = text.rstrip() if visual.pixels else text.strip()
        head = list(self._head)
        break_ids = self.text_ids("\n")
        for number in range(len(visual.pixels)):
            head += [*(break_ids if number else ()), IMAGE_TOKEN_INDEX]
        body = self.text_ids(("\n" if visual.pixels else "") + text)
        answer = question.options.max_new_tokens
        if question.continuation is not None:
            answer = len(self.continuation_ids(question))
        cut = 0
        if self.max_length is not None:
            fixed = len(head) - len(visual.pixels) + visual.num_tokens + len(self._tail) + answer
            start = break_ids if visual.pixels else []
            if len(body) > self.max_length - fixed:
                keep = self.max_length - fixed - len(start)
                if keep < 1:
                    raise TooLong(
                        f"{question.name}: {visual.num_tokens} visual tokens, the template and {answer} tokens for the "
                        f"answer leave no room for the question in {self.max_length} tokens; raise max_length, or take "
                        "a model or a task that is meant for it"
                    )
                cut = len(body) - len(start) - keep
                body = [*start, *body[-keep:]]
        return Prompted(question, visual, [*head, *body, *self._tail], cut)

    def continuation_ids(self, question: Question) -> list[int]:
        """A choice as the answer's tokens; without the space that lmms-eval puts between text and choice."""
        return self.text_ids((question.continuation or "").lstrip(" "))

    def text_ids(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is a control token."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []


class Until(StoppingCriteria):
    """Ends each row once one of the texts stands in what it has generated."""

    def __init__(self, tokenizer: Any, until: Sequence[str]) -> None:
        self.tokenizer, self.until = tokenizer, tuple(until)
        self._window = max(len(text.encode()) for text in until) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # type: ignore[override]
        texts = self.tokenizer.batch_decode(input_ids[:, -self._window :], skip_special_tokens=True)
        ended = [any(stop in text for stop in self.until) for text in texts]
        return torch.tensor(ended, device=input_ids.device)


def cut_until(text: str, until: Sequence[str]) -> str:
    """A text up to where the first of some texts begins."""
    places = [place for place in (text.find(stop) for stop in until) if place >= 0]
    return text[: min(places)] if places else text


def generate(model: Any, prompts: Prompts, batch: Sequence[Prompted]) -> list[str]:
    """Answers of a batch that shares its options; a sampled batch is one question, seeded by what it is."""
    options, tokenizer = batch[0].question.options, prompts.tokenizer
    configured = model.generation_config.eos_token_id
    configured = [configured] if isinstance(configured, int) else configured or []
    stop_ids = sorted({*prompts.stop_ids, *configured})
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    criteria = [Until(tokenizer, options.until)] if options.until else []
    given = _padded([one.ids for one in batch], 0, left=True)
    with _seeded(batch[0].question, model.device) if options.do_sample else contextlib.nullcontext():
        new_BL = model.generate(
            input_ids=given["input_ids"].to(model.device),
            attention_mask=given["attention_mask"].to(model.device),
            images=VisualBatch(tuple(one.visual for one in batch)),
            stopping_criteria=StoppingCriteriaList(criteria),
            eos_token_id=stop_ids,
            pad_token_id=pad,
            **_transformers_options(options),
        )
    answers = []
    for row in new_BL.tolist():
        end = next((place for place, token in enumerate(row) if token in stop_ids), len(row))
        text = tokenizer.decode(row[:end], skip_special_tokens=True)
        answers.append(cut_until(text, options.until).strip())
    return answers


@torch.no_grad()
def likelihoods(model: Any, prompts: Prompts, batch: Sequence[Prompted]) -> list[tuple[float, bool]]:
    """(log-probability of the continuation, whether it is the greedy one) of each question of a batch."""
    targets = [prompts.continuation_ids(one.question) for one in batch]
    rows = [(one, ids) for one, ids in zip(batch, targets, strict=True) if ids]
    if not rows:
        return [(0.0, True)] * len(batch)
    given = _padded([[*one.ids, *ids] for one, ids in rows], 0)
    labels = [[*[IGNORE_INDEX] * len(one.ids), *ids] for one, ids in rows]
    labels_BL = _padded(labels, IGNORE_INDEX)["input_ids"].to(model.device)
    logits_SV = model(
        input_ids=given["input_ids"].to(model.device),
        attention_mask=given["attention_mask"].to(model.device),
        labels=labels_BL,
        images=VisualBatch(tuple(one.visual for one, _ in rows)),
    ).logits.float()
    target_S = torch.tensor([token for _, ids in rows for token in ids], device=logits_SV.device)
    chosen_S = logits_SV.log_softmax(dim=-1).gather(1, target_S[:, None])[:, 0]
    greedy_S = logits_SV.argmax(dim=-1) == target_S
    lengths = [len(ids) for ids in targets]
    return [
        (float(chosen.sum()), bool(greedy.all()))
        for chosen, greedy in zip(chosen_S.split(lengths), greedy_S.split(lengths), strict=True)
    ]


def _padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> dict[str, torch.Tensor]:
    side = "left" if left else "right"
    ids = [torch.tensor(row) for row in rows]
    masks = [torch.ones_like(one) for one in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=value, padding_side=side),
        "attention_mask": pad_sequence(masks, batch_first=True, padding_side=side),
    }


def _transformers_options(options: GenerationOptions) -> dict[str, Any]:
    """Every option by name, so that none comes from the checkpoint's generation_config."""
    common = {
        "max_new_tokens": options.max_new_tokens,
        "do_sample": options.do_sample,
        "num_beams": options.num_beams,
        "repetition_penalty": options.repetition_penalty,
    }
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
    return common | (sampling if options.do_sample else {"temperature": 1.0, "top_p": 1.0, "top_k": 50})


@contextlib.contextmanager
def _seeded(question: Question, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on the question alone; the process's own go on afterwards as before."""
    digest = hashlib.sha256(f"{question.task}|{question.doc_id}|{question.idx}|{question.repeat}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        yield
