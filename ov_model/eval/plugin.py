"""What lmms-eval finds under the entry-point group `lmms_eval.models`: our model, by name and aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

MODEL = "onevision_codec"
ALIASES = ("llava_ov_encoder", "ov_codec")


def manifests() -> list[ModelManifest]:
    """The model that `lmms_eval --model onevision_codec` takes."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(MODEL, simple_class_path="ov_model.eval.adapter.OneVisionCodec", aliases=ALIASES)]
