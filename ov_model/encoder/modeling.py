"""The OneVision encoder: a vision transformer with a rotary embedding over time, row and column (REFERENCE 10).

`forward` takes a batch of equal sequences, `encode_packed` sequences of any length without padding between them.

Shapes: B samples, T frames, H and W pixels, L tokens kept, C channels, V values of a patch (3 * patch * patch).
Tokens are in the order t, then row, then column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ov_model.encoder.attention import Segments, attend
from ov_model.encoder.checkpoint import adapt_to_checkpoint
from ov_model.encoder.configuration import OneVisionEncoderConfig
from ov_model.encoder.rotary import rotate, rotation
from ov_model.encoder.tokens import EncoderInput, dense_input

Rotation = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """What `encode_packed` returns, the tokens of all sequences one after the other.

    Args:
        features_LC: [L,C] at the layer that was asked for.
        lengths: tokens of each sequence, sum L.
        pooled_BC: [number of sequences,C], only at the last layer of a model with a head.
    """

    features_LC: torch.Tensor
    lengths: tuple[int, ...]
    pooled_BC: torch.Tensor | None = None

    def split(self) -> tuple[torch.Tensor, ...]:
        """The features of each sequence."""
        return self.features_LC.split(self.lengths)


def make_norm(config: OneVisionEncoderConfig) -> nn.Module:
    kind = nn.LayerNorm if config.layer_norm_type == "layer_norm" else nn.RMSNorm
    return kind(config.hidden_size, eps=config.layer_norm_eps)


class PatchEmbedding(nn.Conv2d):
    """A convolution whose stride is its kernel, so a product with the patches: [...,V] -> [...,C].

    Only the patches that are kept are embedded.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return nn.functional.linear(input.to(self.weight.dtype), self.weight.flatten(1), self.bias)


class Embeddings(nn.Module):
    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False
        )

    def forward(self, patches_BLV: torch.Tensor) -> torch.Tensor:
        return self.patch_embedding(patches_BLV)


class Attention(nn.Module):
    is_causal = False

    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(self, x_BLC: torch.Tensor, turn: Rotation, segments: Segments | None) -> torch.Tensor:
        query, key, value = (
            project(x_BLC).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed_BLHD = attend(
            self,
            self.config._attn_implementation or "eager",
            rotate(query, *turn),
            rotate(key, *turn),
            value,
            segments,
            scaling=self.config.head_dim**-0.5,
            dropout=self.config.attention_dropout if self.training else 0.0,
            is_causal=False,
        )
        return self.out_proj(mixed_BLHD.flatten(-2))


class Mlp(nn.Module):
    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BLC: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x_BLC)))


class EncoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.layer_norm1 = make_norm(config)
        self.self_attn = Attention(config)
        self.layer_norm2 = make_norm(config)
        self.mlp = Mlp(config)

    def forward(self, x_BLC: torch.Tensor, turn: Rotation, segments: Segments | None) -> torch.Tensor:
        x_BLC = x_BLC + self.self_attn(self.layer_norm1(x_BLC), turn, segments)
        return x_BLC + self.mlp(self.layer_norm2(x_BLC))


class Encoder(nn.Module):
    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])


class ProbeAttention(nn.Module):
    """Multi-head attention of one learned query; parameters named as torch's `MultiheadAttention` names them."""

    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.hidden_size, config.hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.hidden_size))
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, probe_11C: torch.Tensor, x_BLC: torch.Tensor, segments: Segments | None) -> torch.Tensor:
        width = probe_11C.shape[-1]
        query_11C = nn.functional.linear(probe_11C, self.in_proj_weight[:width], self.in_proj_bias[:width])
        pair_BLC = nn.functional.linear(x_BLC, self.in_proj_weight[width:], self.in_proj_bias[width:])
        if segments is None:
            blocks = [pair_BLC]
        else:
            blocks = [pair_BLC[0, r.start : r.stop].unflatten(0, (r.count, r.length)) for r in segments.runs]
        pooled = []
        for block in blocks:
            query, key, value = (
                x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                for x in (query_11C.expand(len(block), 1, width), *block.chunk(2, dim=-1))
            )
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            pooled.append(mixed.transpose(1, 2).flatten(-2))
        return self.out_proj(torch.cat(pooled))


class PoolingHead(nn.Module):
    """One learned query gathers all tokens of a sequence: a = attention(probe); a + mlp(norm(a))."""

    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.attention = ProbeAttention(config)
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x_BLC: torch.Tensor, segments: Segments | None = None) -> torch.Tensor:
        pooled_B1C = self.attention(self.probe, x_BLC, segments)
        return (pooled_B1C + self.mlp(self.norm(pooled_B1C)))[:, 0]


class OneVisionEncoderModel(PreTrainedModel):
    """Published weights load by `from_pretrained`, with and without head, and are saved under the same keys."""

    config_class = OneVisionEncoderConfig
    config: OneVisionEncoderConfig
    base_model_prefix = "onevision_encoder"
    main_input_name = "pixel_values"
    input_modalities = ["image", "video"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "PoolingHead"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: OneVisionEncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layernorm_pre = make_norm(config)
        self.encoder = Encoder(config)
        self.layernorm_post = make_norm(config) if config.use_head else None
        self.head = PoolingHead(config) if config.use_head else None
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers does it; whether there is a head is read from the checkpoint's keys."""
        adapt_to_checkpoint(OneVisionEncoderConfig, pretrained_model_name_or_path, kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, PoolingHead):
            init.normal_(module.probe, std=std)
        elif isinstance(module, ProbeAttention):
            init.normal_(module.in_proj_weight, std=std)
            init.zeros_(module.in_proj_bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def forward(
        self,
        pixel_values: torch.Tensor,
        token_indices: torch.Tensor | None = None,
        patch_positions: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch of pictures or videos of one size.

        Args:
            pixel_values: [B,3,H,W], t = 0, or [B,3,T,H,W].
            token_indices: int64 [B,L] into the dense t, row, column order: only these tokens are encoded.
            patch_positions: integers [B or 1,L,3], (t,h,w) of each token kept; by default its place in the grid.
            output_hidden_states: also num_hidden_layers + 1 tensors [B,L,C]: before the first and after every layer.

        Returns:
            last_hidden_state [B,L,C], post-normed where there is a head, and pooler_output [B,C] or None.

        Raises:
            EncoderInputError: shapes that do not fit, or more frames than `rope_temporal_size` without positions.
        """
        given = dense_input(self.config, pixel_values, token_indices, patch_positions)
        states: list[torch.Tensor] | None = [] if output_hidden_states else None
        x_BLC = self._encode(given, None, self.config.num_hidden_layers, states)
        pooled = None
        if self.layernorm_post is not None and self.head is not None:
            x_BLC = self.layernorm_post(x_BLC)
            pooled = self.head(x_BLC)
        return BaseModelOutputWithPooling(
            last_hidden_state=x_BLC,  # type: ignore[arg-type]
            pooler_output=pooled,  # type: ignore[arg-type]
            hidden_states=None if states is None else tuple(states),  # type: ignore[arg-type]
        )

    def encode_packed(
        self,
        pixel_values: Sequence[torch.Tensor],
        token_indices: Sequence[torch.Tensor | None] | None = None,
        patch_positions: Sequence[torch.Tensor | None] | None = None,
        layer: int = -1,
    ) -> PackedFeatures:
        """Encode sequences of different sizes at once, one after the other on one axis, without padding.

        Args:
            pixel_values: for each sequence [3,H,W] or [3,T,H,W].
            token_indices: for each sequence int64 [L_i] or None.
            patch_positions: for each sequence integers [L_i,3] or None.
            layer: which of the hidden states; -2 is what the projector reads, and layers after it are not run. The last
                one is post-normed and pooled where there is a head.

        Raises:
            EncoderInputError: as for `forward`.
        """
        nothing = [None] * len(pixel_values)
        parts = [
            dense_input(
                self.config,
                pixels[None],
                None if indices is None else indices[None],
                None if positions is None else positions[None],
            )
            for pixels, indices, positions in zip(
                pixel_values, token_indices or nothing, patch_positions or nothing, strict=True
            )
        ]
        lengths = tuple(part.patches_BLV.shape[1] for part in parts)
        given = EncoderInput(
            torch.cat([part.patches_BLV for part in parts], dim=1),
            torch.cat([part.positions_BL3 for part in parts], dim=1),
        )
        segments = Segments.of(lengths, given.patches_BLV.device)
        depth = range(self.config.num_hidden_layers + 1)[layer]
        x_1LC = self._encode(given, segments, depth, None)
        if depth < self.config.num_hidden_layers or self.layernorm_post is None or self.head is None:
            return PackedFeatures(x_1LC[0], lengths)
        x_1LC = self.layernorm_post(x_1LC)
        return PackedFeatures(x_1LC[0], lengths, self.head(x_1LC, segments))

    def _encode(
        self, given: EncoderInput, segments: Segments | None, depth: int, states: list[torch.Tensor] | None
    ) -> torch.Tensor:
        """Embed and run the first `depth` layers; every state is appended to `states` where that is a list."""
        turn = rotation(given.positions_BL3, self.config.head_dim, self.config.rope_theta)
        x_BLC = self.layernorm_pre(self.embeddings(given.patches_BLV))
        for layer in self.encoder.layers[:depth]:
            if states is not None:
                states.append(x_BLC)
            x_BLC = layer(x_BLC, turn, segments)
        if states is not None:
            states.append(x_BLC)
        return x_BLC
