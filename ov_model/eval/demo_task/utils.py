"""What lmms-eval asks of the task `ov_demo`."""

import os
import re
from typing import Any

LETTERS = "ABCD"


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    return [os.path.join(os.path.expanduser(os.environ["HF_HOME"]), "ov_demo", doc["video"])]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, doc["options"], strict=True)]
    return "\n".join([doc["question"], *options, "Answer with the option's letter from the given choices directly."])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    found = re.search(rf"\b([{LETTERS}])\b", results[0])
    return {"accuracy": float(found is not None and found[1] == doc["answer"])}
