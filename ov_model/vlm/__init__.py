"""Vision-language model: OneVision encoder, projector and any causal language model of transformers.

`images` holds what a sample shows, `preprocess` turns pictures into it, `prompt` turns a conversation into tokens and
labels, `model` puts both together.
"""

from ov_model.extras import require

require("train", "torch", "transformers", "safetensors")

from ov_model.vlm.build import PARTS, from_parts, load_vlm, part_of, random_vlm, train_parts, vlm_config  # noqa: E402
from ov_model.vlm.config import LlavaQwen3Config  # noqa: E402
from ov_model.vlm.images import VisualBatch, VisualSample, text_sample  # noqa: E402
from ov_model.vlm.model import LlavaQwen3ForCausalLM, VisionLanguage, vlm_classes  # noqa: E402
from ov_model.vlm.projector import PROJECTOR_FILE, load_projector, save_projector  # noqa: E402
from ov_model.vlm.prompt import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Prompt, build_prompt, build_sample  # noqa: E402

__all__ = [
    "IGNORE_INDEX",
    "IMAGE_TOKEN_INDEX",
    "PARTS",
    "PROJECTOR_FILE",
    "LlavaQwen3Config",
    "LlavaQwen3ForCausalLM",
    "Prompt",
    "VisionLanguage",
    "VisualBatch",
    "VisualSample",
    "build_prompt",
    "build_sample",
    "from_parts",
    "load_projector",
    "load_vlm",
    "part_of",
    "random_vlm",
    "save_projector",
    "text_sample",
    "train_parts",
    "vlm_classes",
    "vlm_config",
]
