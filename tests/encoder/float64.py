"""REFERENCE section 10 once more, in numpy and float64, one sample at a time, for the tests alone.

Written from the text, in other terms than the model: the convolution as sums over windows, the rotary embedding channel
by channel, attention head by head.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def encode(
    weights: Weights,
    config: Any,
    video_3THW: np.ndarray,
    token_indices: np.ndarray | None = None,
    positions_L3: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
    """Last hidden state [L,C], pooled [C] or None, and all hidden states."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    patch = config.patch_size
    _, frames, height, width = video_3THW.shape
    tokens, places = [], []
    for t in range(frames):
        for row in range(height // patch):
            for column in range(width // patch):
                window = video_3THW[:, t, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                kernel = weights["embeddings.patch_embedding.weight"]
                tokens.append(np.tensordot(kernel, window.astype(np.float64), axes=([1, 2, 3], [0, 1, 2])))
                places.append((t, row, column))
    x = norm(np.array(tokens), weights, "layernorm_pre", config)
    where = np.array(places)
    if token_indices is not None:
        x, where = x[token_indices], where[token_indices]
    if positions_L3 is not None:
        where = positions_L3
    cosine, sine = angles(where, config)
    states = [x]
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layers.{number}."
        x = x + attention(norm(x, weights, layer + "layer_norm1", config), weights, layer, config, cosine, sine)
        x = x + mlp(norm(x, weights, layer + "layer_norm2", config), weights, layer + "mlp.")
        states.append(x)
    if not config.use_head:
        return x, None, states
    x = norm(x, weights, "layernorm_post", config)
    return x, pool(x, weights, config), states


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def norm(x: np.ndarray, weights: Weights, name: str, config: Any) -> np.ndarray:
    if config.layer_norm_type == "rms_norm":
        return rms(x, weights[name + ".weight"], config)
    centered = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + config.layer_norm_eps)
    return centered / deviation * weights[name + ".weight"] + weights[name + ".bias"]


def rms(x: np.ndarray, weight: np.ndarray, config: Any) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.layer_norm_eps) * weight


def mlp(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    inner = linear(x, weights, name + "fc1")
    gelu = inner * 0.5 * (1.0 + np.vectorize(math.erf)(inner / math.sqrt(2.0)))
    return linear(gelu, weights, name + "fc2")


def angles(places: np.ndarray, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine [L,head_dim]; the inverse frequencies alone are rounded to float32, as the text says."""
    half = config.hidden_size // config.num_attention_heads // 2
    sizes = [half * share // 16 for share in (4, 6, 6)]
    freqs = []
    for axis, size in enumerate(sizes):
        for i in range(size):
            inverse = np.float64(np.float32(1.0) / np.float32(config.rope_theta) ** np.float32(i / size))
            freqs.append(places[:, axis] * inverse)
    angle = np.stack(freqs + freqs, axis=1)
    return np.cos(angle), np.sin(angle)


def turn(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for k in range(x.shape[1] // 2):
        even, odd = 2 * k, 2 * k + 1
        out[:, even] = x[:, even] * cosine[:, even] - x[:, odd] * sine[:, even]
        out[:, odd] = x[:, odd] * cosine[:, odd] + x[:, even] * sine[:, odd]
    return out


def softmax(score: np.ndarray) -> np.ndarray:
    power = np.exp(score - score.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def attention(
    x: np.ndarray, weights: Weights, layer: str, config: Any, cosine: np.ndarray, sine: np.ndarray
) -> np.ndarray:
    width = config.hidden_size // config.num_attention_heads
    query, key, value = (linear(x, weights, f"{layer}self_attn.{name}_proj") for name in "qkv")
    mixed = np.empty_like(x)
    for head in range(config.num_attention_heads):
        part = slice(head * width, (head + 1) * width)
        score = turn(query[:, part], cosine, sine) @ turn(key[:, part], cosine, sine).T / math.sqrt(width)
        mixed[:, part] = softmax(score) @ value[:, part]
    return linear(mixed, weights, f"{layer}self_attn.out_proj")


def pool(x: np.ndarray, weights: Weights, config: Any) -> np.ndarray:
    size, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    probe = weights["head.probe"].reshape(1, size)
    matrices = np.split(weights["head.attention.in_proj_weight"], 3)
    biases = np.split(weights["head.attention.in_proj_bias"], 3)
    query, key, value = (
        given @ matrix.T + bias for given, matrix, bias in zip((probe, x, x), matrices, biases, strict=True)
    )
    mixed = np.empty((1, size))
    for head in range(config.num_attention_heads):
        part = slice(head * width, (head + 1) * width)
        mixed[:, part] = softmax(query[:, part] @ key[:, part].T / math.sqrt(width)) @ value[:, part]
    pooled = linear(mixed, weights, "head.attention.out_proj")
    return (pooled + mlp(rms(pooled, weights["head.norm.weight"], config), weights, "head.mlp."))[0]
