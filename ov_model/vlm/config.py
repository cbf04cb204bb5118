"""Configuration of the vision-language model: the language model's own fields, flat, and `mm_*` beside them.

The layout is that of the published `config.json` (REFERENCE 11), which names the encoder only; ours nests the encoder's
configuration as `vision_config` as well, so that a checkpoint needs nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Qwen3Config
from transformers.configuration_utils import SubConfigSpec

from ov_model.encoder import OneVisionEncoderConfig
from ov_model.encoder.configuration import PRESETS
from ov_model.errors import UsageError
from ov_model.vlm.preprocess import ANYRES_PINPOINTS
from ov_model.vlm.prompt import IMAGE_TOKEN_INDEX

ENCODER_SPEC = {"vision_config": SubConfigSpec(OneVisionEncoderConfig)}


@dataclass(kw_only=True)
class VisionFields:
    """What the configuration of a causal language model gains.

    Args:
        vision_config: the encoder's configuration; without, from the folder `mm_vision_tower`, else the published size
            of width `mm_hidden_size`, else large.
        mm_projector_type: "linear", or "mlpNx_gelu" of N layers.
        mm_vision_select_layer: which hidden state of the encoder the projector reads.
        image_aspect_ratio: how single images are prepared: anyres, pad or plain.
        tokenizer_padding_side: of training batches; generation pads on the left always.

    Raises:
        UsageError: a feature, merge type or layer that there is not.
    """

    vision_config: Any = None
    mm_vision_tower: str | None = None
    mm_projector_type: str = "mlp2x_gelu"
    mm_hidden_size: int | None = None
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_patch_merge_type: str = "flat"
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = False
    mm_tunable_parts: str | None = None
    mm_vision_tower_lr: float | None = None
    image_aspect_ratio: str = "anyres"
    image_grid_pinpoints: Any = None
    image_token_index: int = IMAGE_TOKEN_INDEX
    tokenizer_model_max_length: int | None = None
    tokenizer_padding_side: str = "right"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = self._named_encoder()
        super().__post_init__(**kwargs)  # type: ignore[misc]
        if self.image_grid_pinpoints is None:
            self.image_grid_pinpoints = [list(pinpoint) for pinpoint in ANYRES_PINPOINTS]
        encoder = self.vision_config
        if self.mm_hidden_size is None:
            self.mm_hidden_size = encoder.hidden_size
        if self.mm_hidden_size != encoder.hidden_size:
            raise UsageError(f"mm_hidden_size is {self.mm_hidden_size}, but the encoder's is {encoder.hidden_size}")
        if self.mm_vision_select_feature != "patch" or self.mm_patch_merge_type != "flat":
            raise UsageError(
                f"mm_vision_select_feature {self.mm_vision_select_feature!r} and mm_patch_merge_type "
                f"{self.mm_patch_merge_type!r} cannot be honored; use 'patch' and 'flat'"
            )
        states = encoder.num_hidden_layers + 1
        if not -states <= self.mm_vision_select_layer < states:
            raise UsageError(
                f"mm_vision_select_layer is {self.mm_vision_select_layer}; the encoder has {states} states"
            )

    def _named_encoder(self) -> OneVisionEncoderConfig:
        if self.mm_vision_tower and (Path(self.mm_vision_tower) / "config.json").is_file():
            return OneVisionEncoderConfig.from_pretrained(self.mm_vision_tower)
        width = self.mm_hidden_size or OneVisionEncoderConfig().hidden_size
        for name, sizes in PRESETS.items():
            if sizes["hidden_size"] == width:
                return OneVisionEncoderConfig.preset(name)
        raise UsageError(
            f"no vision_config, mm_vision_tower {self.mm_vision_tower!r} is no folder, and no published encoder has "
            f"mm_hidden_size {width}"
        )


class LlavaQwen3Config(VisionFields, Qwen3Config):
    """The published model: Qwen3 and the OneVision encoder."""

    model_type = "llava_qwen3"
    sub_configs_defaults = ENCODER_SPEC
