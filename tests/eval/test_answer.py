"""Prompts, options and frames: what the model is asked, and what it is shown where there is no asset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ov_model.errors import MissingFile, TooLong
from ov_model.eval.answer import Prompts
from ov_model.eval.questions import GenerationOptions, Question
from ov_model.eval.visuals import read_frames
from ov_model.vlm import IMAGE_TOKEN_INDEX, build_prompt, text_sample
from ov_model.vlm.preprocess import image_sample
from ov_model.vlm.tiny import tiny_tokenizer
from tests.eval.assets import SMALL
from tests.factories import make_video


def question(text: str, **options: Any) -> Question:
    return Question(0, "bench", "test", 7, 0, 0, text, None, GenerationOptions(max_new_tokens=5, **options))


def test_a_prompt_is_the_templates_with_the_pictures_first() -> None:
    tokenizer = tiny_tokenizer(["What moves?"])
    shown = image_sample([Image.new("RGB", (20, 20))] * 2, SMALL, "x", "plain")
    found = Prompts(tokenizer, None).build(question("What moves? <|im_end|>"), shown).ids
    turns = [{"from": "human", "value": "<image>\n<image>\nWhat moves? <|im_end|>"}]
    assert found == build_prompt(turns, tokenizer, 2)
    text = Prompts(tokenizer, None).build(question("Hello"), text_sample("x")).ids
    assert text == build_prompt([{"from": "human", "value": "Hello"}], tokenizer, 0)


def test_a_templates_trimming_is_kept() -> None:
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    found = Prompts(tokenizer, None).build(question("  Hello \n"), text_sample("x")).ids
    assert found == build_prompt([{"from": "human", "value": "  Hello \n"}], tokenizer, 0)


def test_a_placeholder_in_a_question_stays_text() -> None:
    tokenizer = tiny_tokenizer()
    shown = image_sample([Image.new("RGB", (20, 20))], SMALL, "x", "plain")
    ids = Prompts(tokenizer, None).build(question("Where is <image> here?"), shown).ids
    assert ids.count(IMAGE_TOKEN_INDEX) == 1
    assert "Where is <image> here?" in tokenizer.decode(ids[ids.index(IMAGE_TOKEN_INDEX) + 1 :])


def test_a_text_that_does_not_fit_loses_its_beginning_and_no_picture() -> None:
    tokenizer = tiny_tokenizer()
    shown = image_sample([Image.new("RGB", (20, 20))] * 2, SMALL, "x", "plain")
    whole = Prompts(tokenizer, None).build(question("x" * 300 + " the end."), shown)
    limit = len(whole.ids) - 2 + shown.num_tokens + 5 - 40
    cut = Prompts(tokenizer, limit).build(question("x" * 300 + " the end."), shown)
    assert cut.cut == 40
    assert len(cut.ids) == len(whole.ids) - 40
    assert cut.ids.count(IMAGE_TOKEN_INDEX) == 2
    assert "the end.<|im_end|>" in tokenizer.decode([token for token in cut.ids if token >= 0])
    with pytest.raises(TooLong, match="bench document 7: 32 visual tokens"):
        Prompts(tokenizer, 60).build(question("Hello"), shown)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, GenerationOptions()),
        ({"temperature": 0, "do_sample": True}, GenerationOptions()),
        ({"temperature": 0.7, "do_sample": False, "top_p": 0.9}, GenerationOptions()),
        ({"temperature": 0.7, "top_p": 0.9}, GenerationOptions(do_sample=True, temperature=0.7, top_p=0.9)),
        ({"do_sample": True, "top_k": 5}, GenerationOptions(do_sample=True, top_k=5)),
        ({"until": "x", "num_beams": 2}, GenerationOptions(until=("x",), num_beams=2)),
        ({"until": None, "max_new_tokens": 16, "top_p": None}, GenerationOptions(max_new_tokens=16)),
    ],
)
def test_generation_options(given: dict[str, Any], expected: GenerationOptions) -> None:
    assert GenerationOptions.parse(given) == (expected, ())


def test_frames_are_the_ones_that_the_times_say(tmp_path: Path) -> None:
    shades = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(12)]
    clip = make_video(tmp_path / "clip.mp4", width=64, height=48, images=shades)
    means = [float(np.asarray(frame).mean()) for frame in read_frames(clip, 4)]
    assert means == pytest.approx([0, 30, 70, 110], abs=6)
    with pytest.raises(MissingFile):
        read_frames(tmp_path / "gone.mp4", 4)
