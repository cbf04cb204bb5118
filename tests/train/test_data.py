"""Rows -> samples -> batches: every kind of row, every fault named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ov_model.errors import BadImage, BadRecord, MissingFile, SampleError, VisualMismatch
from ov_model.train.data import JsonlDataset, SkippedSample, TrainingSample, collate
from ov_model.train.recipe import DataRecipe
from ov_model.vlm.prompt import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from ov_model.vlm.tiny import tiny_tokenizer
from tests.train.samples import TINY, codec_row, conversation, image_row, text_row, write_jsonl

RECIPE = DataRecipe(geometry=TINY, max_length=4096, image_aspect_ratio="plain")
TOKENIZER = tiny_tokenizer()


def dataset(folder: Path, rows: list[dict[str, Any]], recipe: DataRecipe = RECIPE) -> JsonlDataset:
    return JsonlDataset(write_jsonl(folder / "train.jsonl", rows), recipe, TOKENIZER)


def load(folder: Path, row: dict[str, Any], recipe: DataRecipe = RECIPE) -> TrainingSample:
    return dataset(folder, [row], recipe).load(0)


def test_a_codec_video(tmp_path: Path) -> None:
    sample = load(tmp_path, codec_row(tmp_path, 1, "a dog"))
    assert sample.visual.kind == "codec"
    assert [tuple(picture.shape) for picture in sample.visual.pixels] == [(3, 126, 126)] * 2
    wanted = np.load(tmp_path / "images/sample_1/positions_thw.npy")
    assert np.array_equal(sample.visual.positions_L3, wanted)  # type: ignore[arg-type]
    assert int((sample.input_ids_L == IMAGE_TOKEN_INDEX).sum()) == 2
    text = len(sample.input_ids_L) - 2
    assert sample.length == text + TINY.num_patches
    answer = sample.labels_L[sample.labels_L != IGNORE_INDEX]
    assert TOKENIZER.decode(answer) == "a dog<|im_end|>"


def test_one_image_several_images_and_text(tmp_path: Path) -> None:
    one = load(tmp_path, image_row(tmp_path, 0))
    assert (one.visual.kind, one.visual.tokens_per_image) == ("image", [81])
    two = image_row(tmp_path, 1) | {"conversations": conversation("Both?", "yes", 2), "image": ["photos/0.png"] * 2}
    assert load(tmp_path, two).visual.tokens_per_image == [81, 81]
    text = load(tmp_path, text_row(3))
    assert (text.visual.kind, text.length) == ("text", len(text.input_ids_L))


def test_eight_square_images_are_no_video_unless_they_say_so(tmp_path: Path) -> None:
    row = image_row(tmp_path, 0, (126, 126))
    row |= {"image": [row["image"]] * 8, "conversations": conversation("What?", "a", 8)}
    assert load(tmp_path, row).visual.kind == "image"
    frames = load(tmp_path, row | {"kind": "frames"})
    assert frames.visual.kind == "frames"
    assert frames.visual.positions_L3 is not None
    assert frames.visual.positions_L3[:: TINY.patches_per_image, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 15]


def test_image_ratio_is_the_recipes(tmp_path: Path) -> None:
    row = image_row(tmp_path, 0, (1600, 500))
    wide = load(tmp_path, row, replace(RECIPE, image_aspect_ratio="anyres", max_length=9000))
    assert wide.visual.tokens_per_image == [(1694 // 14) * (574 // 14)]
    padded = load(tmp_path, row, replace(RECIPE, image_aspect_ratio="pad")).visual.pixels[0]
    assert padded.shape == (3, 126, 126)
    assert padded[:, 0].std(dim=-1).max() < 1e-5


def test_paths_absolute_relative_and_below_the_image_folder(tmp_path: Path) -> None:
    row = codec_row(tmp_path / "lake", 1, "x")
    absolute = row | {
        "image": [str(tmp_path / "lake" / name) for name in row["image"]],
        "positions_thw": str(tmp_path / "lake" / row["positions_thw"]),
    }
    assert load(tmp_path / "elsewhere", absolute).visual.kind == "codec"
    elsewhere = replace(RECIPE, image_folder=str(tmp_path / "lake"))
    assert load(tmp_path / "elsewhere", row, elsewhere).visual.kind == "codec"
    with pytest.raises(MissingFile, match=r"codec-1.*image_folder"):
        load(tmp_path / "elsewhere", row)


def test_every_fault_names_the_sample(tmp_path: Path) -> None:
    good = codec_row(tmp_path, 1, "x")
    broken = tmp_path / "images/sample_1/broken.jpg"
    broken.write_bytes((tmp_path / good["image"][0]).read_bytes()[:700])
    Image.new("RGB", (100, 100)).save(tmp_path / "small.png")
    positions = np.load(tmp_path / good["positions_thw"])
    np.save(tmp_path / "late.npy", positions + np.array([TINY.sequence_length, 0, 0]))
    np.save(tmp_path / "short.npy", positions[:-1])
    (tmp_path / "text.npy").write_text("no array")
    other = good["image"][1]
    faults: list[tuple[dict[str, Any], type[SampleError]]] = [
        ({"image": ["missing.jpg", other]}, MissingFile),
        ({"image": ["images/sample_1/broken.jpg", other]}, BadImage),
        ({"image": ["text.npy", other]}, BadImage),
        ({"image": ["small.png", other]}, VisualMismatch),
        ({"image": [other]}, VisualMismatch),
        ({"image": [1, 2]}, BadRecord),
        ({"positions_thw": "late.npy"}, VisualMismatch),
        ({"positions_thw": "short.npy"}, VisualMismatch),
        ({"positions_thw": "text.npy"}, BadRecord),
        ({"positions_thw": "missing.npy"}, MissingFile),
        ({"conversations": conversation("no pictures", "x")}, VisualMismatch),
        ({"conversations": None}, BadRecord),
    ]
    data = dataset(tmp_path, [good | change for change, _ in faults])
    for row, (change, error) in enumerate(faults):
        with pytest.raises(error, match="codec-1") as caught:
            data[row]
        assert f"row {row}" in str(caught.value), change


def test_skipping_says_what_was_skipped(tmp_path: Path) -> None:
    rows = [text_row(0), image_row(tmp_path, 1) | {"image": "gone.png"}]
    data = dataset(tmp_path, rows, replace(RECIPE, on_bad_sample="skip"))
    found = data[1]
    assert isinstance(found, SkippedSample)
    assert (found.row, found.reason) == (1, "missing_file")
    batch = collate([data[0], found], pad_token_id=0)
    assert len(batch["input_ids"]) == 1
    assert batch["skipped"] == [found]


def test_a_batch_without_a_usable_sample_has_no_label(tmp_path: Path) -> None:
    batch = collate([SkippedSample(0, "missing_file", "")], pad_token_id=7)
    assert batch["input_ids"].tolist() == [[7, 7]]
    assert batch["labels"].eq(IGNORE_INDEX).all()
    assert len(batch["images"]) == 1
    assert int(batch["lengths"].sum()) == 0


def test_batches_are_padded_on_the_right(tmp_path: Path) -> None:
    data = dataset(tmp_path, [text_row(0, 3), text_row(1, 30)])
    samples = [data.load(0), data.load(1)]
    batch = collate(samples, pad_token_id=5)
    short = len(samples[0].input_ids_L)
    assert batch["input_ids"][0, short:].eq(5).all()
    assert batch["labels"][0, short:].eq(IGNORE_INDEX).all()
    assert batch["attention_mask"].sum(dim=1).tolist() == [short, len(samples[1].input_ids_L)]


@pytest.mark.parametrize("aspect", ["plain", "pad", "anyres"])
def test_measured_length_is_the_loaded_one(tmp_path: Path, aspect: Any) -> None:
    rows = [codec_row(tmp_path, 0, "a"), image_row(tmp_path, 1, (40, 90)), text_row(2, 30)]
    data = dataset(tmp_path, rows, replace(RECIPE, image_aspect_ratio=aspect, max_length=30_000))
    assert [data.measure(row) for row in range(3)] == [(data.load(row).length, 0) for row in range(3)]


def test_pixels_are_bicubic_and_normalized(tmp_path: Path) -> None:
    row = codec_row(tmp_path, 0, "a")
    pixels = load(tmp_path, row).visual.pixels[0]
    image = Image.open(tmp_path / row["image"][0]).resize((126, 126), Image.Resampling.BICUBIC)
    wanted = (np.asarray(image) / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    assert np.abs(pixels.permute(1, 2, 0).numpy() - wanted).max() < 1e-5


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    assert load(tmp_path, text_row(0) | {"id": 12}).sample_id == "12"
    with pytest.raises(BadRecord, match="id is a NoneType"):
        load(tmp_path, json.loads('{"conversations": []}'))
