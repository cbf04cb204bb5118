"""Rows of a training JSONL -> samples -> batches.

A row is a codec video (mosaics and `positions_thw`), one or more single images, plain frames of a video
(`"kind": "frames"`), or text alone. Pictures are decoded when a sample is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from ov_model.errors import BadRecord, MissingFile, SampleError
from ov_model.geometry import Geometry
from ov_model.image_files import open_image, read_image
from ov_model.lake.files import read_array
from ov_model.train.index import JsonlRows
from ov_model.train.recipe import DataRecipe
from ov_model.vlm.images import VisualBatch, VisualSample, text_sample
from ov_model.vlm.preprocess import ANYRES_PINPOINTS, best_pinpoint, codec_sample, frames_sample, image_sample
from ov_model.vlm.prompt import IGNORE_INDEX, Prompt, build_sample


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Token ids and labels of equal length, int64 [L], one `IMAGE_TOKEN_INDEX` per picture of `visual`.

    Args:
        length: text + visual tokens.
    """

    sample_id: str
    input_ids_L: torch.Tensor
    labels_L: torch.Tensor
    visual: VisualSample
    length: int


@dataclass(frozen=True)
class SkippedSample:
    """A sample that could not be used, where the recipe says to go on."""

    row: int
    reason: str
    detail: str


class JsonlDataset(Dataset[TrainingSample | SkippedSample]):
    """Samples of a training JSONL by row number.

    Relative paths start at `recipe.image_folder`, else at the JSONL's folder.

    Args:
        cache: folder for the index of the rows.
    """

    def __init__(self, jsonl: Path, recipe: DataRecipe, tokenizer: Any, *, cache: Path | None = None) -> None:
        self.rows = JsonlRows(jsonl, cache)
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.base = Path(recipe.image_folder) if recipe.image_folder else jsonl.parent

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> TrainingSample | SkippedSample:
        """Raises SampleError, naming row and id, unless the recipe says to skip."""
        try:
            return self.load(row)
        except SampleError as error:
            if self.recipe.on_bad_sample == "raise":
                raise
            return SkippedSample(row, error.reason, str(error))

    def load(self, row: int) -> TrainingSample:
        """Decode and tokenize one row.

        Raises:
            SampleError: names row and id; `reason` says what is wrong.
        """
        record = self._record(row)
        try:
            visual = self._visual(record)
            prompt = self._prompt(record, visual.tokens_per_image, visual.is_video)
            visual = visual.first(prompt.num_images)
        except SampleError as error:
            raise type(error)(f"{self.rows.path}: row {row} (id {record['id']!r}): {error}") from error
        return TrainingSample(
            record["id"],
            torch.tensor(prompt.input_ids, dtype=torch.int64),
            torch.tensor(prompt.labels, dtype=torch.int64),
            visual,
            prompt.length,
        )

    def measure(self, row: int) -> tuple[int, int]:
        """Length of a row's sample in text + visual tokens, and how many tokens were cut; decodes no picture.

        Raises:
            SampleError: as `load`, as far as it shows without decoding.
        """
        record = self._record(row)
        try:
            paths, kind = self._paths(record), self._kind(record)
            if kind == "image" and self.recipe.image_aspect_ratio == "anyres":
                tokens = [self._anyres_tokens(path) for path in paths]
            else:
                tokens = [self.recipe.geometry.patches_per_image] * len(paths)
            prompt = self._prompt(record, tokens, kind in ("codec", "frames"))
        except SampleError as error:
            raise type(error)(f"{self.rows.path}: row {row} (id {record['id']!r}): {error}") from error
        return prompt.length, prompt.cut

    def _record(self, row: int) -> dict[str, Any]:
        record = self.rows[row]
        for name, wanted in (("id", (str, int)), ("conversations", list)):
            if not isinstance(record.get(name), wanted):
                found = type(record.get(name)).__name__
                raise BadRecord(f"{self.rows.path}: row {row} (id {record.get('id')!r}): {name} is a {found}")
        return record | {"id": str(record["id"])}

    def _kind(self, record: dict[str, Any]) -> str:
        if not record.get("image"):
            return "text"
        if record.get("positions_thw"):
            return "codec"
        return "frames" if record.get("kind") == "frames" else "image"

    def _paths(self, record: dict[str, Any]) -> list[Path]:
        images = record.get("image") or []
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise BadRecord(f"image is {images!r}; expected a path or a list of paths")
        return [self.base / image for image in images]

    def _visual(self, record: dict[str, Any]) -> VisualSample:
        kind, geometry = self._kind(record), self.recipe.geometry
        images = [_read_image(path) for path in self._paths(record)]
        if kind == "text":
            return text_sample(record["id"])
        if kind == "codec":
            return codec_sample(images, _read_positions(self.base / record["positions_thw"]), geometry, record["id"])
        if kind == "frames":
            return frames_sample(images, geometry, record["id"])
        return image_sample(images, geometry, record["id"], self.recipe.image_aspect_ratio)

    def _prompt(self, record: dict[str, Any], tokens_per_image: Sequence[int], one_block: bool) -> Prompt:
        return build_sample(
            record["conversations"],
            self.tokenizer,
            tokens_per_image,
            template=self.recipe.template,
            max_length=self.recipe.max_length,
            one_block=one_block,
            sample_id=record["id"],
        )

    def _anyres_tokens(self, path: Path) -> int:
        with _missing_told(path), open_image(path) as image:
            return anyres_tokens(image.size, self.recipe.geometry)


def anyres_tokens(size: tuple[int, int], geometry: Geometry) -> int:
    """Visual tokens of a single image (width, height) under `anyres`."""
    width, height = best_pinpoint(*size, ANYRES_PINPOINTS)
    return (width // geometry.encoder_patch) * (height // geometry.encoder_patch)


@contextmanager
def _missing_told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingFile(
            f"{path}: no such file; set image_folder where paths are relative to another folder"
        ) from None


def _read_image(path: Path) -> Image.Image:
    with _missing_told(path):
        return read_image(path)


def _read_positions(path: Path) -> Any:
    try:
        return read_array(path)
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such file; it should hold the positions of the mosaics' tiles") from None
    except (OSError, ValueError, EOFError) as error:
        raise BadRecord(f"{path}: not an array of positions: {error}") from error


def collate(samples: Sequence[TrainingSample | SkippedSample], *, pad_token_id: int) -> dict[str, Any]:
    """A batch, padded on the right.

    Returns:
        input_ids, labels, attention_mask: int64 [B,L]; images: the B samples' pictures; lengths: int64 [B], text +
        visual tokens; skipped: the samples left out. Where none is left, one row without a label stands in, so that
        every process still takes part in the step.
    """
    usable = [sample for sample in samples if isinstance(sample, TrainingSample)]
    skipped = [sample for sample in samples if isinstance(sample, SkippedSample)]
    if not usable:
        blank = torch.full((2,), pad_token_id)
        usable = [TrainingSample("", blank, torch.full((2,), IGNORE_INDEX), text_sample(""), 0)]
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return {
        "input_ids": pad([sample.input_ids_L for sample in usable], padding_value=pad_token_id),
        "labels": pad([sample.labels_L for sample in usable], padding_value=IGNORE_INDEX),
        "attention_mask": pad([torch.ones_like(sample.input_ids_L) for sample in usable]),
        "images": VisualBatch(tuple(sample.visual for sample in usable)),
        "lengths": torch.tensor([sample.length for sample in usable]),
        "skipped": skipped,
    }
