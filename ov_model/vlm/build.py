"""Make a vision-language model: from its own checkpoint, from parts, or with random weights; choose what is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel, choose_attention
from ov_model.errors import UsageError
from ov_model.vlm.model import PREFIX, VisionLanguage, vlm_classes
from ov_model.vlm.projector import load_projector

PARTS = ("mm_vision_tower", "mm_mlp_adapter", "mm_language_model")
DROPPED = ("model_type", "architectures", "transformers_version", "dtype", "_name_or_path")


def _attention(asked: str | None, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """None for sdpa, transformers' own default, because some language models have eager attention only."""
    chosen = asked or choose_attention(device, dtype)
    return None if asked is None and chosen == "sdpa" else chosen


def load_vlm(name_or_path: str | Path, **options: Any) -> VisionLanguage:
    """A saved or published vision-language model over any language model; options as for `from_pretrained`.

    Raises:
        UsageError: the checkpoint is of another kind.
    """
    found, _ = PretrainedConfig.get_config_dict(str(name_or_path))
    model_type = str(found.get("model_type"))
    if not model_type.startswith(PREFIX):
        raise UsageError(
            f"{name_or_path} has model_type {model_type!r}; a vision-language model's begins with {PREFIX}"
        )
    return vlm_classes(model_type.removeprefix(PREFIX))[1].from_pretrained(name_or_path, **options)


def vlm_config(lm: PretrainedConfig, encoder: OneVisionEncoderConfig, **fields: Any) -> Any:
    """The configuration of a language model with the encoder's and `mm_*` fields added."""
    values = {name: value for name, value in lm.to_dict().items() if name not in DROPPED}
    return vlm_classes(lm.model_type)[0](**{**values, "vision_config": encoder.to_dict(), **fields})


def from_parts(
    lm: str | Path,
    encoder: str | Path,
    *,
    projector: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    **fields: Any,
) -> VisionLanguage:
    """A trained language model and a trained encoder, with a new projector or that of `mm_projector.bin`.

    Args:
        lm, encoder: folder or hub repository.
        attention: eager, sdpa or flash_attention_2; by default what the device and dtype have (`choose_attention`).
        fields: `mm_*` and others of the configuration.
    """
    tower = OneVisionEncoderModel.from_pretrained(encoder, dtype=dtype)
    fields = {"mm_vision_tower": str(encoder), **fields}
    config = vlm_config(AutoConfig.from_pretrained(lm), tower.config, **fields)
    model = vlm_classes(config.model_type.removeprefix(PREFIX))[1].from_pretrained(
        lm, config=config, dtype=dtype, attn_implementation=_attention(attention, device, dtype)
    )
    model.encoder.load_state_dict(tower.state_dict())
    if projector is not None:
        load_projector(model, projector)
    return model.to(device)  # type: ignore[arg-type]


def random_vlm(
    config: Any, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, attention: str | None = None
) -> VisionLanguage:
    """The model of a configuration with random weights, made where it is to be."""
    config._attn_implementation = _attention(attention, device, dtype)
    model_class = vlm_classes(config.model_type.removeprefix(PREFIX))[1]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return model_class(config)
    finally:
        torch.set_default_dtype(before)


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to, by its name."""
    if ".vision_tower." in f".{name}":
        return "mm_vision_tower"
    return "mm_mlp_adapter" if ".mm_projector." in f".{name}" else "mm_language_model"


def train_parts(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Let exactly these PARTS be trained; names of the parameters that are.

    What the encoder has beyond the layer that the projector reads gets no gradient and stays frozen always.

    Raises:
        UsageError: an unknown part.
    """
    wanted = set(parts)
    if unknown := wanted - set(PARTS):
        raise UsageError(f"cannot train {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    config: Any = model.config
    depth = range(config.vision_config.num_hidden_layers + 1)[config.mm_vision_select_layer]
    trained = []
    for name, parameter in model.named_parameters():
        layer = re.search(r"vision_tower\.encoder\.layers\.(\d+)\.", name)
        beyond = (layer is not None and int(layer[1]) >= depth) or (
            re.search(r"vision_tower\.(head|layernorm_post)\.", name) is not None
            and depth < config.vision_config.num_hidden_layers
        )
        parameter.requires_grad_(part_of(name) in wanted and not beyond)
        if parameter.requires_grad:
            trained.append(name)
    return trained
