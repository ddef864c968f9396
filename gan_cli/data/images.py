"""Decodes image files of any size, format and colour mode into arrays, and rejects malicious files."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gan_cli.errors import UserError

log = logging.getLogger(__name__)

# Pillow supports many rarely tested formats, whose decoders a malicious file could exploit. Only the following
# formats are opened.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# Maximum number of pixels of an image, as a protection against decompression bombs (small files that decode to very
# many pixels).
MAX_PIXELS = 64_000_000


class BadImage(Exception):
    """Raised for an image that cannot be read, is damaged, is too large, or has a format that is not allowed."""


SKIPPED = "%s: the image cannot be decoded (%s) and is skipped."


def refusal(name: str, error: BadImage) -> str:
    """The message of ``on_error=refuse`` for an image that cannot be decoded."""
    return (
        f"{name}: the image cannot be decoded ({error}).\n"
        "Remove the file, or set dataset.on_error=skip to leave out images that cannot be decoded."
    )


@dataclass
class Skipped:
    """Counter of the images that ``on_error=skip`` leaves out."""

    count: int = 0


def decode(content: bytes, resolution: int, channels: int) -> np.ndarray:
    """Decodes one image file to uint8 ``[resolution, resolution, channels]``.

    The image is rotated according to its EXIF orientation, composited onto white if it is transparent, resized so
    that the shorter side is ``resolution``, and centre-cropped. For an animation, only the first frame is decoded.

    Raises:
        BadImage: the image is damaged, is not in one of the allowed formats, or has more than 64 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,}")
            # JPEG files can be decoded at a reduced size, which is faster.
            image.draft("RGB", (2 * resolution, 2 * resolution))
            image.load()
            image = ImageOps.exif_transpose(image)
    except BadImage:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadImage(
            "not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
        ) from error
    except Exception as error:  # a decoder may raise any exception on a damaged file
        raise BadImage(f"{type(error).__name__}: {error}") from error
    image = _flat(image, "L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """The image in the given colour mode, with 8-bit values and without transparency."""
    if image.mode.startswith(("I", "F")):
        values: np.ndarray = np.asarray(image).astype(np.float64)
        # 16-bit values have the fixed range 0..65535. 32-bit integers and floats have no fixed range, so the
        # minimum of the image is mapped to 0 and the maximum to 255.
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (values.min(), values.max())
        scaled = (values - low) / max(high - low, 1e-12) * 255
        image = Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def decode_all(
    named: Iterable[tuple[str, bytes | BadImage]], resolution: int, channels: int, on_error: str, skipped: Skipped
) -> Iterator[tuple[str, np.ndarray]]:
    """Decodes ``(name, content)`` pairs and yields ``(name, image)`` pairs.

    Args:
        named: pairs of the name of a file and its content, or the reason why it cannot be read.
        resolution: height and width of the decoded images in pixels.
        channels: 1 for greyscale, 3 for RGB.
        on_error: treatment of images that cannot be decoded. With ``"skip"``, the function logs a warning for each
            such image and continues. With ``"refuse"``, the first such image raises a UserError.
        skipped: counter that is incremented for each skipped image.

    Raises:
        UserError: an image cannot be decoded and ``on_error`` is ``"refuse"``.
    """
    for name, content in named:
        try:
            if isinstance(content, BadImage):
                raise content
            yield name, decode(content, resolution, channels)
        except BadImage as error:
            if on_error == "refuse":
                raise UserError(refusal(name, error)) from error
            skipped.count += 1
            log.warning(SKIPPED, name, error)
