"""Training data made on the spot: mosaics that can be told apart, questions, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ov_model.geometry import Geometry

TINY = Geometry(sequence_length=16, num_images=2, square_size=144)
ANSWERS = ("red", "a green field", "blue sky over water", "two dogs", "nothing at all", "the number 7", "yes", "no")


def conversation(question: str, answer: str, images: int = 0) -> list[dict[str, str]]:
    """One question with its pictures, one answer."""
    block = "<image>\n" * images
    return [{"from": "human", "value": block + question}, {"from": "gpt", "value": answer}]


def codec_row(folder: Path, number: int, answer: str, geometry: Geometry = TINY) -> dict[str, Any]:
    """A codec video: mosaics with a color pattern of their own, sorted positions; paths relative to `folder`."""
    dice = np.random.default_rng(number)
    side, home = geometry.square_size, f"images/sample_{number}"
    (folder / home).mkdir(parents=True)
    names = []
    for index in range(geometry.num_images):
        colors = dice.integers(0, 256, (geometry.grid // 3, geometry.grid // 3, 3), np.uint8)
        image = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
        names.append(f"{home}/clip_{index:03d}.jpg")
        image.save(folder / names[-1], quality=95)
    cells = geometry.patches_per_image
    later = np.sort(
        dice.choice(np.arange(cells, geometry.sequence_length * cells), geometry.num_patches - cells, False)
    )
    flat = np.concatenate([np.arange(cells), later])
    pos_K3 = np.stack([flat // cells, flat % cells // geometry.grid, flat % geometry.grid], axis=1).astype(np.int32)
    np.save(folder / home / "positions_thw.npy", pos_K3)
    return {
        "id": f"codec-{number}",
        "conversations": conversation("What is shown?", answer, geometry.num_images),
        "image": names,
        "positions_thw": f"{home}/positions_thw.npy",
    }


def image_row(folder: Path, number: int, size: tuple[int, int] = (90, 60)) -> dict[str, Any]:
    """A single image; its path is a string."""
    name = f"photos/{number}.png"
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 40 % 256, 90, 200)).save(folder / name)
    return {"id": f"image-{number}", "conversations": conversation("Color?", f"color {number}", 1), "image": name}


def text_row(number: int, words: int = 5) -> dict[str, Any]:
    return {"id": f"text-{number}", "conversations": conversation("Count.", " ".join(map(str, range(words))))}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_codec_data(folder: Path, count: int = 8) -> Path:
    """A JSONL of codec videos of the tiny geometry."""
    rows = [codec_row(folder, number, ANSWERS[number % len(ANSWERS)]) for number in range(count)]
    return write_jsonl(folder / "train.jsonl", rows)


def write_mixed_data(folder: Path, count: int = 16) -> Path:
    """Codec videos, single images and text, of different lengths."""
    makers = (
        lambda number: codec_row(folder, number, ANSWERS[number % len(ANSWERS)]),
        lambda number: image_row(folder, number),
        lambda number: text_row(number, 3 + number),
        lambda number: codec_row(folder, number, "a longer answer " * (1 + number % 3)),
    )
    return write_jsonl(folder / "train.jsonl", [makers[number % 4](number) for number in range(count)])
