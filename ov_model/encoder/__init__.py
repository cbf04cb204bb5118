"""OneVision encoder: configuration, model and image processor, registered with transformers' Auto classes.

    from ov_model.encoder import OneVisionEncoderModel
    encoder = OneVisionEncoderModel.from_pretrained("lmms-lab-encoder/onevision-encoder-large")

REFERENCE 10 says what the published weights expect; `rotary` holds the one surprise.
"""

from ov_model.extras import require

require("train", "torch", "transformers", "safetensors")

from transformers import AutoConfig, AutoImageProcessor, AutoModel  # noqa: E402

from ov_model.encoder.attention import choose_attention  # noqa: E402
from ov_model.encoder.configuration import OneVisionEncoderConfig  # noqa: E402
from ov_model.encoder.image_processing import OneVisionEncoderImageProcessor  # noqa: E402
from ov_model.encoder.modeling import OneVisionEncoderModel, PackedFeatures  # noqa: E402

AutoConfig.register(OneVisionEncoderConfig.model_type, OneVisionEncoderConfig, exist_ok=True)
AutoModel.register(OneVisionEncoderConfig, OneVisionEncoderModel, exist_ok=True)
AutoImageProcessor.register(
    OneVisionEncoderConfig, image_processor_classes={"pil": OneVisionEncoderImageProcessor}, exist_ok=True
)

__all__ = [
    "OneVisionEncoderConfig",
    "OneVisionEncoderImageProcessor",
    "OneVisionEncoderModel",
    "PackedFeatures",
    "choose_attention",
]
