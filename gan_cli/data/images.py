"""Decoding images of any size, format and colour mode into arrays, with an eye to hostile files."""

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

# Pillow can open many rarely tested formats; only these are allowed to.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# A decompression bomb claims many pixels in few bytes. 64 megapixels are far beyond any training image.
MAX_PIXELS = 64_000_000


class BadImage(Exception):
    """An image that cannot be decoded, or should not be."""


@dataclass
class Skipped:
    """What was left out under ``on_error=skip``."""

    count: int = 0


def decode(content: bytes, resolution: int, channels: int) -> np.ndarray:
    """One image file as uint8 ``[resolution, resolution, channels]``.

    The shorter side is resized to ``resolution`` and the middle cut out; transparency is laid on white; the
    EXIF orientation is applied; of an animation the first frame is taken.

    Raises:
        BadImage: the content is truncated, of no allowed format, or larger than 64 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            # An image whose header asks for a draft mode decodes no more than it needs.
            image.draft("RGB", (2 * resolution, 2 * resolution))
            image.load()
            image = ImageOps.exif_transpose(image)
    except BadImage:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadImage(
            "not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
        ) from error
    except Exception as error:  # decoders fail on damaged files in ways of their own
        raise BadImage(f"{type(error).__name__}: {error}") from error
    image = _flat(image, "L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode`` without transparency; 16-bit and floating-point values are scaled to 8 bits."""
    if image.mode.startswith(("I", "F")):
        values: np.ndarray = np.asarray(image).astype(np.float64)
        # 16 bits are a fixed scale; 32-bit integers and floats have none, so they are stretched to fill it.
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (values.min(), values.max())
        scaled = (values - low) / max(high - low, 1e-12) * 255
        image = Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def decode_all(
    named: Iterable[tuple[str, bytes]], resolution: int, channels: int, on_error: str, skipped: Skipped
) -> Iterator[tuple[str, np.ndarray]]:
    """The decoded images of ``(name, content)`` pairs; a bad one is named, and skipped or refused."""
    for name, content in named:
        try:
            yield name, decode(content, resolution, channels)
        except BadImage as error:
            if on_error == "refuse":
                raise UserError(f"{name}: {error}.\ndataset.on_error=skip leaves such images out.") from error
            skipped.count += 1
            log.warning("skipped %s: %s", name, error)
