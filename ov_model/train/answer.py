"""Let an exported model answer rows of a training JSONL.

python -m ov_model.train.answer RUN/export DATA.jsonl --row 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoTokenizer

from ov_model.train.data import JsonlDataset
from ov_model.train.recipe import load_recipe
from ov_model.vlm.build import load_vlm
from ov_model.vlm.images import VisualBatch
from ov_model.vlm.prompt import build_prompt


@dataclass(frozen=True)
class Answer:
    """What a row asks first, what its data answer and what the model does."""

    sample_id: str
    question: str
    expected: str
    answer: str


def answer_rows(
    export: Path, jsonl: Path, rows: Sequence[int], *, max_new_tokens: int = 64, device: str = "cpu"
) -> list[Answer]:
    """Greedy answers to the first question of each row, in one batch; sizes and templates are the recipe's.

    Raises:
        SampleError: a row that cannot be used.
    """
    recipe = load_recipe(export / "recipe.yaml").data
    tokenizer = AutoTokenizer.from_pretrained(export)
    model = load_vlm(export).eval().to(device)  # type: ignore[arg-type]
    dataset = JsonlDataset(jsonl, replace(recipe, on_bad_sample="raise"), tokenizer)
    samples = [dataset.load(row) for row in rows]
    prompts, talks = [], []
    for row, sample in zip(rows, samples, strict=True):
        turns = dataset.rows[row]["conversations"]
        first = next(number for number, turn in enumerate(turns) if turn["from"] == "gpt")
        talks.append((turns[first - 1]["value"] if first else "", turns[first]["value"]))
        images = len(sample.visual.pixels)
        ids = build_prompt(turns[:first], tokenizer, images, template=recipe.template, sample_id=sample.sample_id)
        prompts.append(torch.tensor(ids))
    pad = torch.nn.utils.rnn.pad_sequence
    new_BL = model.generate(
        input_ids=pad(prompts, batch_first=True, padding_value=tokenizer.pad_token_id).to(device),
        attention_mask=pad([torch.ones_like(ids) for ids in prompts], batch_first=True).to(device),
        images=VisualBatch(tuple(sample.visual for sample in samples)),
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
    texts = tokenizer.batch_decode(new_BL, skip_special_tokens=True)
    return [
        Answer(sample.sample_id, question.replace("<image>", "").strip(), expected, text.strip())
        for sample, (question, expected), text in zip(samples, talks, texts, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers of an exported model to rows of a training JSONL.")
    parser.add_argument("export", type=Path)
    parser.add_argument("jsonl", type=Path)
    parser.add_argument("--row", type=int, action="append", help="may be given several times [default: 0]")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for found in answer_rows(options.export, options.jsonl, options.row or [0], device=options.device):
        print(f"{found.sample_id}: {found.question}\n  expected: {found.expected}\n  answer:   {found.answer}")


if __name__ == "__main__":
    main()
