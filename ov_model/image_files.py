"""Opening pictures that others made: under a pixel limit, in known formats, with one error for whatever is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from ov_model.errors import BadImage, OvError

MAX_PIXELS = 2**28 // 3
"""Largest picture that is decoded: 256 MiB as RGB (89 million pixels; Pillow only warns there)."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read; others stay closed, above all EPS, for which Pillow would start Ghostscript."""


@contextmanager
def open_image(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[Image.Image]:
    """A picture, its header read and held against MAX_PIXELS; decode it (`load`, `convert`) inside the block.

    Raises:
        FileNotFoundError: there is no such file. BadImage: it is too large, of another format, or does not decode.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(
                    f"{source}: {width}x{height} pixels; at most {MAX_PIXELS:,} are decoded, make it smaller"
                )
            yield image
    except (FileNotFoundError, OvError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"{source}: {error}; at most {MAX_PIXELS:,} pixels are decoded, make it smaller") from error
    except Exception as error:  # damaged files make Pillow raise a dozen kinds
        raise BadImage(f"{source}: {error or type(error).__name__}") from error


def read_image(source: str | os.PathLike[str] | IO[bytes], mode: str = "RGB") -> Image.Image:
    """A picture, decoded to the end and in one mode. Raises as `open_image`."""
    with open_image(source) as image:
        image.load()
        return image if image.mode == mode else image.convert(mode)
