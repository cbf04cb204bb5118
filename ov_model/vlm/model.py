"""The vision-language model: encoder -> projector -> the forward pass of any causal language model of transformers.

`LlavaQwen3ForCausalLM` is the published one; `vlm_classes("llama")` makes the same over another language model. All are
the language model's own class with two modules more in its base, so checkpoints have the published keys, and whatever
the language model does to its logits, cache or loss stays its own.

Shapes: B rows, L tokens, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3ForCausalLM,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ov_model.encoder import OneVisionEncoderConfig, OneVisionEncoderModel
from ov_model.encoder.checkpoint import adapt_to_checkpoint
from ov_model.errors import UsageError, VisualMismatch
from ov_model.vlm.config import ENCODER_SPEC, LlavaQwen3Config, VisionFields
from ov_model.vlm.images import VisualBatch, VisualSample
from ov_model.vlm.merge import Merged, merge
from ov_model.vlm.projector import make_projector
from ov_model.vlm.prompt import IGNORE_INDEX

PREFIX = "llava_"
TOWER = "vision_tower.vision_tower."
Images = VisualBatch | Sequence[VisualSample]


class VisionTower(nn.Module):
    """Holds the encoder under the published key and turns a batch into features.

    Another tower (SigLIP 2, say) is another class with this `forward`, chosen in `VisionLanguage.__init__`.
    """

    def __init__(self, config: OneVisionEncoderConfig, layer: int) -> None:
        super().__init__()
        self.vision_tower = OneVisionEncoderModel(config)
        self.layer = layer

    def forward(self, images: VisualBatch) -> torch.Tensor:
        """Features [visual tokens of the batch, C], sample by sample, picture by picture."""
        pixels, positions = zip(*(part for sample in images for part in sample.sequences()), strict=True)
        return self.vision_tower.encode_packed(pixels, patch_positions=positions, layer=self.layer).features_LC


class VisionLanguage(PreTrainedModel, GenerationMixin):
    """What a causal language model gains; comes before it among the bases."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        base = self._base()
        base.vision_tower = VisionTower(config.vision_config, config.mm_vision_select_layer)
        base.mm_projector = make_projector(config.mm_projector_type, config.mm_hidden_size, config.hidden_size)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers does it; whether the encoder has a head is read from the checkpoint's keys."""
        prefix = f"{cls.base_model_prefix}.{TOWER}"
        adapt_to_checkpoint(cast(Any, cls.config_class), pretrained_model_name_or_path, kwargs, prefix)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def _base(self) -> Any:
        return getattr(self, self.base_model_prefix)

    @property
    def vision_tower(self) -> VisionTower:
        return self._base().vision_tower

    @property
    def encoder(self) -> OneVisionEncoderModel:
        return self.vision_tower.vision_tower

    @property
    def mm_projector(self) -> nn.Module:
        return self._base().mm_projector

    def encode_images(self, images: Images) -> torch.Tensor:
        """Projected features [visual tokens, hidden size] of a batch, all its sequences in one pack."""
        weight = next(self.mm_projector.parameters())
        batch = VisualBatch.of(images).to(weight.device, dtype=self.encoder.dtype)
        return self.mm_projector(self.vision_tower(batch).to(weight.dtype))

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: Images | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """One pass over text and pictures.

        Args:
            input_ids: int64 [B,L], `IMAGE_TOKEN_INDEX` once for every picture.
            labels: [B,L], `IGNORE_INDEX` where nothing is supervised.
            images: what each row shows, text-only rows included; float tensors on any device.
            inputs_embeds, position_ids, logits_to_keep, and all else: the language model's own; `generate` looks for
                them in this signature.

        Returns:
            The language model's output. With labels, `logits` are [supervised tokens,V] only, in the order of the rows:
            of ten thousand visual tokens nobody needs the logits.

        Raises:
            VisualMismatch: pictures and placeholders do not fit, naming the sample.
        """
        if images is None or inputs_embeds is not None:
            if input_ids is not None and bool((input_ids == self.config.image_token_index).any()):
                raise VisualMismatch("input_ids hold image placeholders, but no images were given")
            if input_ids is None or labels is None:
                given = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
                given |= {"position_ids": position_ids, "logits_to_keep": logits_to_keep}
                return super().forward(**given, **({} if labels is None else {"labels": labels}), **kwargs)
            images = [VisualSample(str(row), "text") for row in range(len(input_ids))]
        if input_ids is None:
            raise UsageError("images need input_ids with their placeholders, not inputs_embeds")
        merged = merge(
            input_ids,
            attention_mask,
            labels,
            VisualBatch.of(images),
            self.config.image_token_index,
            self.config.tokenizer_padding_side,
        )
        given: dict[str, Any] = {"inputs_embeds": self.embed(merged, images)}
        if merged.padded:
            given |= {"attention_mask": merged.mask_BL, "position_ids": merged.position_ids()}
        if merged.labels_BL is None:
            return super().forward(**given, logits_to_keep=logits_to_keep, **kwargs)
        return self._supervised(given, merged.labels_BL, kwargs)

    def _supervised(self, given: dict[str, Any], labels_BL: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        target_BL = nn.functional.pad(labels_BL[:, 1:], (0, 1), value=IGNORE_INDEX)
        keep_BL = target_BL != IGNORE_INDEX
        supervised = bool(keep_BL.any())
        if not supervised:
            keep_BL[0, 0] = True
        num_items = kwargs.pop("num_items_in_batch", None)
        output = super().forward(**given, logits_to_keep=keep_BL, **{"use_cache": False, **kwargs})
        if not supervised:
            output.loss = output.logits.sum() * 0.0
            return output
        output.loss = self.loss_function(
            logits=output.logits,
            labels=None,
            shift_labels=target_BL[keep_BL],
            vocab_size=self.config.vocab_size,
            num_items_in_batch=num_items,
        )
        if getattr(output, "aux_loss", None) is not None:
            output.loss = output.loss + self.config.router_aux_loss_coef * output.aux_loss
        return output

    def embed(self, merged: Merged, images: Images) -> torch.Tensor:
        """[B,L,hidden size]: embeddings of the text, projected features of the pictures.

        A batch of text only still runs the encoder on one black patch, weighted zero, where parameters are partitioned
        or gradients are averaged over ranks: every rank must run the same modules.
        """
        embeds = self.get_input_embeddings()(merged.ids_BL)
        batch = VisualBatch.of(images)
        if batch.num_tokens:
            features = self.encode_images(batch).to(embeds.dtype)
            return embeds.index_put(merged.visual_BL.nonzero(as_tuple=True), features)
        if self.training or is_deepspeed_zero3_enabled():
            patch = self.config.vision_config.patch_size
            nothing = VisualSample("none", "image", (torch.zeros(3, patch, patch),), patch=patch)
            embeds = embeds + self.encode_images([nothing]).sum().to(embeds.dtype) * 0.0
        return embeds

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        images: Images | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer a batch of prompts of any lengths and kinds; the options are transformers'.

        Args:
            input_ids, attention_mask: [B,L], padded on either side; rows are padded on the left before they are read.
            images: as in `forward`; None where no row shows anything.

        Returns:
            The new tokens only.
        """
        if input_ids is None:
            return cast(Any, super()).generate(attention_mask=attention_mask, **kwargs)
        if images is None:
            images = [VisualSample(str(row), "text") for row in range(len(input_ids))]
        merged = merge(
            input_ids, attention_mask, None, VisualBatch.of(images), self.config.image_token_index, padding_side="left"
        )
        return cast(Any, super()).generate(
            inputs_embeds=self.embed(merged, images), attention_mask=merged.mask_BL, **kwargs
        )


class LlavaQwen3ForCausalLM(VisionLanguage, Qwen3ForCausalLM):
    """The published model: OneVision encoder, projector, Qwen3."""

    config_class = LlavaQwen3Config
    config: LlavaQwen3Config


@cache
def vlm_classes(language_model: str = "qwen3") -> tuple[type[PretrainedConfig], type[VisionLanguage]]:
    """Configuration and model over a causal language model, by its `model_type`; registered with the Auto classes.

    Raises:
        UsageError: transformers has no causal language model of that type.
    """
    if language_model == "qwen3":
        return LlavaQwen3Config, LlavaQwen3ForCausalLM
    if language_model not in CONFIG_MAPPING or CONFIG_MAPPING[language_model] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(f"transformers has no causal language model of type {language_model!r}")
    base_config = CONFIG_MAPPING[language_model]
    base_model = cast(type, MODEL_FOR_CAUSAL_LM_MAPPING[base_config])
    config_class = type(
        f"Llava{base_config.__name__}",
        (VisionFields, base_config),
        {
            "__module__": __name__,
            "model_type": PREFIX + language_model,
            "sub_configs_defaults": ENCODER_SPEC,
        },
    )
    model_class = type(
        f"Llava{base_model.__name__}",
        (VisionLanguage, base_model),
        {"__module__": __name__, "config_class": config_class, "__annotations__": {"config": config_class}},
    )
    register(config_class, model_class)
    return config_class, cast(type[VisionLanguage], model_class)


def register(config_class: Any, model_class: Any) -> None:
    """So that AutoConfig and AutoModelForCausalLM know our checkpoints."""
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)


register(LlavaQwen3Config, LlavaQwen3ForCausalLM)
