"""Tokenizer and model of a recipe: published weights, a checkpoint of ours, or random parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, set_seed

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel
from ov_model.errors import SampleError, UsageError
from ov_model.train.index import JsonlRows
from ov_model.train.recipe import ModelRecipe, Recipe
from ov_model.vlm.build import load_vlm, random_vlm, train_parts, vlm_config
from ov_model.vlm.model import VisionLanguage
from ov_model.vlm.projector import PROJECTOR_FILE, load_projector
from ov_model.vlm.tiny import tiny_tokenizer

TUNABLE = {"vision_tower": "mm_vision_tower", "projector": "mm_mlp_adapter", "language_model": "mm_language_model"}
TOKENIZER_ROWS = 100_000

VISION_TOWERS: dict[str, Callable[[dict[str, Any]], OneVisionEncoderConfig]] = {
    "onevision_encoder": lambda values: OneVisionEncoderConfig(**values),
}
"""`vision_tower_type` -> configuration. A tower of another kind also needs a class beside `VisionTower`."""


def make_tokenizer(recipe: ModelRecipe, rows: JsonlRows) -> Any:
    """The tokenizer that a recipe names, or one trained on the conversations of the data.

    Raises:
        UsageError: it cannot pad.
    """
    if recipe.tokenizer == "train":
        return tiny_tokenizer(_texts(rows), recipe.tokenizer_vocab)
    source = recipe.tokenizer or recipe.checkpoint or recipe.language_model
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token_id is None:
        raise UsageError(f"the tokenizer of {source} has no padding token; set one in its tokenizer_config.json")
    return tokenizer


def make_model(recipe: Recipe, tokenizer: Any, *, dtype: torch.dtype, device: torch.device | str) -> VisionLanguage:
    """The recipe's model on the CPU, with the parts to be trained asking for gradients.

    Args:
        dtype: of all parameters.
        device: where it will run; decides the attention kernel.

    Raises:
        UsageError: a tower of a kind that nobody registered, a projector file that is not there.
    """
    set_seed(recipe.seed)
    model = _load(recipe, tokenizer, dtype, device)
    if recipe.model.projector is not None:
        load_projector(model, projector_file(recipe.model.projector))
    model.config.codec_geometry = asdict(recipe.data.geometry)
    train_parts(model, [TUNABLE[part] for part, rate in recipe.rates.items() if rate])
    return model


def projector_file(place: str) -> Path:
    """`mm_projector.bin` itself, or the one in a folder or in its `export/`.

    Raises:
        UsageError: there is none.
    """
    path = Path(place)
    for found in (path, path / PROJECTOR_FILE, path / "export" / PROJECTOR_FILE):
        if found.is_file():
            return found
    raise UsageError(f"model.projector: {place} is no {PROJECTOR_FILE} and holds none; train the projector stage first")


def _load(recipe: Recipe, tokenizer: Any, dtype: torch.dtype, device: torch.device | str) -> VisionLanguage:
    model = recipe.model
    attention = {} if model.attention is None else {"attn_implementation": model.attention}
    if model.checkpoint is not None:
        return load_vlm(model.checkpoint, dtype=dtype, **attention)
    if model.vision_tower_type not in VISION_TOWERS:
        raise UsageError(
            f"recipe {recipe.name}: model.vision_tower_type is {model.vision_tower_type!r}; "
            f"use one of {', '.join(VISION_TOWERS)}"
        )
    tower = None
    if model.vision_tower is not None:
        tower = OneVisionEncoderModel.from_pretrained(model.vision_tower, dtype=dtype)
    encoder = tower.config if tower is not None else VISION_TOWERS[model.vision_tower_type](model.vision_config or {})
    config = vlm_config(_language_config(model, tokenizer), encoder, **_fields(recipe))
    built = random_vlm(config, dtype=dtype, attention=_kernel(model, dtype, device))
    if model.language_model is not None:
        built = type(built).from_pretrained(
            model.language_model, config=config, dtype=dtype, attn_implementation=config._attn_implementation
        )
    if tower is not None:
        built.encoder.load_state_dict(tower.state_dict())
    return built


def _kernel(model: ModelRecipe, dtype: torch.dtype, device: torch.device | str) -> str | None:
    if model.attention is not None:
        return model.attention
    from ov_model.encoder import choose_attention

    chosen = choose_attention(device, dtype)
    return None if chosen == "sdpa" else chosen


def _language_config(model: ModelRecipe, tokenizer: Any) -> Any:
    if model.language_model is not None:
        return AutoConfig.from_pretrained(model.language_model)
    values = dict(model.language_config or {})
    kind = values.pop("model_type", "qwen3")
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(kind, **{"vocab_size": len(tokenizer), "tie_word_embeddings": False, **ends, **values})


def _fields(recipe: Recipe) -> dict[str, Any]:
    parts = [TUNABLE[part] for part, rate in recipe.rates.items() if rate]
    return {
        "mm_vision_tower": recipe.model.vision_tower,
        "mm_projector_type": recipe.model.projector_type,
        "mm_vision_select_layer": recipe.model.select_layer,
        "image_aspect_ratio": recipe.data.image_aspect_ratio,
        "tokenizer_model_max_length": recipe.data.max_length,
        "mm_tunable_parts": ",".join(parts),
        "mm_vision_tower_lr": recipe.rates["vision_tower"] or None,
    }


def _texts(rows: JsonlRows) -> Iterator[str]:
    """What is said in the data; a row that cannot be read says nothing here and is reported by the loader."""
    for row in itertools.islice(range(len(rows)), TOKENIZER_ROWS):
        try:
            turns = rows[row].get("conversations")
        except SampleError:
            continue
        for turn in turns if isinstance(turns, list) else []:
            if isinstance(turn, dict) and isinstance(turn.get("value"), str):
                yield turn["value"].replace("<image>", "")
