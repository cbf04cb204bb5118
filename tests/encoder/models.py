"""Small encoders whose weights are all alive, and what is measured on them."""

from __future__ import annotations

from typing import Any

import torch

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel


def small_encoder(seed: int = 0, **changes: Any) -> OneVisionEncoderModel:
    """Two heads of 64 channels, three layers; biases and norms random too, so that none could be left out unseen."""
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 192}
    attention = changes.pop("attention", None)
    config = OneVisionEncoderConfig(**{**sizes, **changes})
    config._attn_implementation = attention
    model = OneVisionEncoderModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(noise * scale + ("norm" in name and name.endswith("weight")))
    return model


def pixels(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: Any) -> float:
    """Largest difference over the largest value."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return float((found.detach().double() - expected).abs().max() / expected.abs().max())
