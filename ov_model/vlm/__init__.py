"""Vision-language model: OneVision encoder, projector and any causal language model of transformers.

`images` holds what a sample shows, `preprocess` turns pictures into it, `prompt` turns a conversation into tokens and
labels, `model` puts both together.
"""

from ov_model.extras import require

require("train", "torch", "transformers", "safetensors")
