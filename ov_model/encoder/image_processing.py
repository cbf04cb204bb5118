"""Image processor of the OneVision encoder: bicubic resize to `size`, CLIP mean and deviation (REFERENCE 10)."""

from __future__ import annotations

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


class OneVisionEncoderImageProcessor(PilBackend):
    """Pictures -> `pixel_values` float32 [B,3,H,W]; `size` is {"height", "width"} in whole patches.

    PIL resizes, so that training, evaluation and this class agree to the bit.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 448, "width": 448}  # noqa: RUF012
    default_to_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
