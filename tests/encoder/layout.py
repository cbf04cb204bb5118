"""The published tensors by name and shape, written down from REFERENCE 10 and 11 without asking the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Shapes = dict[str, tuple[int, ...]]
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}


def encoder_shapes(sizes: Mapping[str, Any], *, head: bool) -> Shapes:
    """Every tensor of an encoder checkpoint; without head the norm before it is gone too."""
    width, inner, patch = sizes["hidden_size"], sizes["intermediate_size"], sizes["patch_size"]
    shapes: Shapes = {"embeddings.patch_embedding.weight": (width, 3, patch, patch)}

    def add(name: str, *shape: int) -> None:
        shapes[name + ".weight"] = shape
        shapes[name + ".bias"] = shape[:1]

    add("layernorm_pre", width)
    for number in range(sizes["num_hidden_layers"]):
        layer = f"encoder.layers.{number}."
        for name in ("q", "k", "v", "out"):
            add(f"{layer}self_attn.{name}_proj", width, width)
        add(layer + "layer_norm1", width)
        add(layer + "layer_norm2", width)
        add(layer + "mlp.fc1", inner, width)
        add(layer + "mlp.fc2", width, inner)
    if head:
        add("layernorm_post", width)
        shapes["head.probe"] = (1, 1, width)
        shapes["head.attention.in_proj_weight"] = (3 * width, width)
        shapes["head.attention.in_proj_bias"] = (3 * width,)
        add("head.attention.out_proj", width, width)
        shapes["head.norm.weight"] = (width,)
        add("head.mlp.fc1", inner, width)
        add("head.mlp.fc2", width, inner)
    return shapes


def vlm_shapes(encoder: Shapes, sizes: Mapping[str, Any], lm: Mapping[str, Any]) -> Shapes:
    """Every tensor of a LLaVA-Qwen3 checkpoint with untied embeddings and an mlp2x_gelu projector."""
    width, inner, vocabulary = lm["hidden_size"], lm["intermediate_size"], lm["vocab_size"]
    channels = lm["head_dim"]
    shapes: Shapes = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (vocabulary, width),
        "model.mm_projector.0.weight": (width, sizes["hidden_size"]),
        "model.mm_projector.0.bias": (width,),
        "model.mm_projector.2.weight": (width, width),
        "model.mm_projector.2.bias": (width,),
    }
    for number in range(lm["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        queries, pairs = lm["num_attention_heads"] * channels, lm["num_key_value_heads"] * channels
        shapes[layer + "self_attn.q_proj.weight"] = (queries, width)
        shapes[layer + "self_attn.k_proj.weight"] = (pairs, width)
        shapes[layer + "self_attn.v_proj.weight"] = (pairs, width)
        shapes[layer + "self_attn.o_proj.weight"] = (width, queries)
        shapes[layer + "self_attn.q_norm.weight"] = (channels,)
        shapes[layer + "self_attn.k_norm.weight"] = (channels,)
        shapes[layer + "mlp.gate_proj.weight"] = (inner, width)
        shapes[layer + "mlp.up_proj.weight"] = (inner, width)
        shapes[layer + "mlp.down_proj.weight"] = (width, inner)
        shapes[layer + "input_layernorm.weight"] = (width,)
        shapes[layer + "post_attention_layernorm.weight"] = (width,)
    return {**shapes, **{f"model.vision_tower.vision_tower.{name}": shape for name, shape in encoder.items()}}


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
