"""A tiny checkpoint with random weights, and lmms-eval's own requests over documents made on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance

from ov_model.geometry import Geometry
from ov_model.train.export import processor
from ov_model.train.recipe import dump_recipe, load_recipe
from ov_model.vlm import random_vlm
from ov_model.vlm.tiny import tiny_config, tiny_tokenizer
from tests.eval.assets import SMALL

GREEDY = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": []}
TASK, SPLIT = "bench", "test"


def tiny_checkpoint(folder: Path, geometry: Geometry = SMALL, *, recipe: bool = True, **fields: Any) -> Path:
    """A folder that the adapter takes; what is shown changes the answers, which are letters."""
    tokenizer = tiny_tokenizer(["What moves? A red ball rolls."])
    torch.manual_seed(0)
    model = random_vlm(tiny_config(tokenizer, image_aspect_ratio="pad", **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
        letters = [number for token, number in tokenizer.get_vocab().items() if token.isascii() and token.isalpha()]
        unsaid = [number for number in range(len(tokenizer)) if number not in letters]
        model.get_parameter("lm_head.weight")[unsaid] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(geometry).save_pretrained(folder)
    if recipe:
        values = {
            name: getattr(geometry, name) for name in ("sequence_length", "num_images", "square_size", "patch_size")
        }
        overrides = [f"data.geometry.{name}={value}" for name, value in values.items()]
        (folder / "recipe.yaml").write_text(dump_recipe(load_recipe("tiny", overrides)))
    return folder


def show(document: Mapping[str, Any]) -> Any:
    """The tasks' doc_to_visual: what the document holds, or the end of the process, as video tasks do."""
    shown = document.get("visual", [])
    if isinstance(shown, SystemExit):
        raise shown
    return shown


def requests(
    lm: Any,
    documents: Sequence[Mapping[str, Any]],
    task: str = TASK,
    *,
    options: Mapping[str, Any] = GREEDY,
    repeats: int = 1,
) -> list[Instance]:
    """One request a document {visual, question}, as lmms-eval builds and repeats them."""
    lm.task_dict[task] = {SPLIT: list(documents)}
    found = []
    for number, document in enumerate(documents):
        arguments = (document.get("question", "What moves?"), dict(options), show, number, task, SPLIT)
        metadata = {"task": task, "doc_id": number, "repeats": repeats, "split": SPLIT}
        found += [Instance("generate_until", arguments, 0, metadata)] * repeats
    return found


def choices(lm: Any, document: Mapping[str, Any], answers: Sequence[str], task: str = TASK) -> list[Instance]:
    """The requests of a multiple_choice document."""
    lm.task_dict[task] = {SPLIT: [document]}
    metadata = {"task": task, "doc_id": 0, "repeats": 1, "split": SPLIT}
    return [
        Instance("loglikelihood", (document["question"], f" {answer}", show, 0, task, SPLIT), number, metadata)
        for number, answer in enumerate(answers)
    ]
