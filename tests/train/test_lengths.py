"""The token length report."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov_model.errors import MissingFile
from ov_model.train import lengths as lengths_module
from ov_model.train.data import JsonlDataset
from ov_model.train.lengths import Lengths, draw_lengths, measure_lengths, report_lengths, token_lengths
from ov_model.train.recipe import DataRecipe
from ov_model.vlm.tiny import tiny_tokenizer
from tests.train.samples import TINY, codec_row, image_row, text_row, write_jsonl

TOKENIZER = tiny_tokenizer()
RECIPE = DataRecipe(geometry=TINY, max_length=300, image_aspect_ratio="plain")


def write(folder: Path) -> Path:
    long = codec_row(folder, 9, "so many words " * 40)
    rows = [codec_row(folder, number, "yes") for number in range(4)] + [long, text_row(0), image_row(folder, 1)]
    return write_jsonl(folder / "train.jsonl", rows)


def test_report_of_data(tmp_path: Path) -> None:
    report = token_lengths(write(tmp_path), RECIPE, TOKENIZER)
    assert (report.samples, report.truncated, report.bad) == (7, 1, {})
    assert report.max > 300
    assert report.tokens_cut == report.max - 300
    assert sum(report.counts) == 7
    assert report.edges[0] <= report.p50 <= report.p99 <= report.max < report.edges[-1]


def test_a_video_that_cannot_fit_is_counted(tmp_path: Path) -> None:
    report = token_lengths(write(tmp_path), replace(RECIPE, max_length=150), TOKENIZER)
    assert report.bad == {"too_long": 5}
    assert report.samples == 2


@pytest.mark.parametrize("size", [0, 1, 2, 500])
def test_percentiles_and_histogram(size: int) -> None:
    length_N = np.random.default_rng(0).integers(10, 1000, size)
    report = report_lengths(Lengths(length_N, np.zeros(size, np.int64), {}), max_length=500)
    assert sum(report.counts) == size
    if size:
        assert (report.p50, report.max) == (np.sort(length_N)[size // 2 if size != 2 else 1], length_N.max())
        assert (length_N <= report.p99).mean() >= 0.99


def test_picture(tmp_path: Path) -> None:
    report = token_lengths(write(tmp_path), RECIPE, TOKENIZER)
    png = draw_lengths(report, 640, 320)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (640, 320)
    colors = {color for _, color in image.getcolors(1 << 16) or []}  # type: ignore[misc]
    assert {(0x2E, 0x6D, 0xA4), (0xC0, 0x39, 0x2B)} <= colors
    assert len(png) < 64_000


def test_a_bad_row_raises_or_is_counted(tmp_path: Path) -> None:
    rows = [text_row(0), image_row(tmp_path, 1) | {"image": "gone.png"}]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    anyres = replace(RECIPE, image_aspect_ratio="anyres")
    with pytest.raises(MissingFile, match="image-1"):
        measure_lengths(JsonlDataset(path, anyres, TOKENIZER), cache=tmp_path / "cache")
    skip = replace(anyres, on_bad_sample="skip")
    found = measure_lengths(JsonlDataset(path, skip, TOKENIZER), cache=tmp_path / "cache")
    assert found.usable_rows().tolist() == [0]
    assert found.bad[1][0] == "missing_file"
    with pytest.raises(MissingFile, match="image-1"):
        measure_lengths(JsonlDataset(path, anyres, TOKENIZER), cache=tmp_path / "cache")


def test_lengths_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    first = measure_lengths(JsonlDataset(path, RECIPE, TOKENIZER), cache=tmp_path / "cache")
    monkeypatch.setattr(lengths_module.JsonlDataset, "measure", None)
    again = measure_lengths(JsonlDataset(path, RECIPE, TOKENIZER), cache=tmp_path / "cache")
    assert np.array_equal(first.length_N, again.length_N)
    with pytest.raises(TypeError):
        measure_lengths(JsonlDataset(path, replace(RECIPE, max_length=290), TOKENIZER), cache=tmp_path / "cache")
