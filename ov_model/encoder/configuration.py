"""Configuration of the OneVision encoder; the defaults are those of the published large model (REFERENCE 10)."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from ov_model.errors import UsageError

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "huge": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120},
}


class OneVisionEncoderConfig(PretrainedConfig):
    """Fields of the published `config.json`.

    Args:
        image_size: side in pixels that the image processor makes; the model takes any whole number of patches.
        hidden_act: "gelu" is the exact one.
        layer_norm_type: "layer_norm" or "rms_norm"; the head's own norm is RMS always.
        rope_temporal_size: longest video without explicit positions, in frames; None is no limit.
        use_head: pooling head and the norm before it; without, the checkpoint has 12 tensors less (of large: 387).

    Raises:
        UsageError: sizes that do not divide as the rotary embedding needs, or an unknown norm.
    """

    model_type = "onevision_encoder"
    base_config_key = "vision_config"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 448
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    layer_norm_type: str = "layer_norm"
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02
    rope_theta: float | int = 10000.0
    rope_temporal_size: int | None = 64
    use_head: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads:
            raise UsageError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_dim % 32:
            raise UsageError(
                f"hidden_size / num_attention_heads is {self.head_dim}; the rotary embedding splits half of it in "
                "sixteenths, so it must be a multiple of 32"
            )
        if self.layer_norm_type not in ("layer_norm", "rms_norm"):
            raise UsageError(f"layer_norm_type is {self.layer_norm_type!r}; use layer_norm or rms_norm")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def preset(cls, name: str, **changes: Any) -> OneVisionEncoderConfig:
        """The published sizes "base", "large", "huge", or "tiny" for tests.

        Raises:
            UsageError: an unknown name.
        """
        if name not in PRESETS:
            raise UsageError(f"no encoder preset {name!r}; use one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})
