"""Decodes image files of any size, format and colour mode into arrays, and rejects malicious files."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from gan_cli.errors import UserError
from gan_cli.types import Resolution

log = logging.getLogger(__name__)

# Pillow supports many rarely tested formats, whose decoders a malicious file could exploit. Only the following
# formats are opened. AVIF and HEIC need decoders that are not installed everywhere.
FORMATS: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# Suffixes of image files that are passed over because a decoder is missing, and the remedy.
UNREAD: dict[str, str] = {}
if features.check("avif"):
    FORMATS, SUFFIXES = (*FORMATS, "AVIF"), (*SUFFIXES, ".avif")
else:
    UNREAD[".avif"] = "this build of Pillow cannot read AVIF; try: pip install --force-reinstall pillow"
try:
    from pillow_heif import register_heif_opener
except ImportError:
    UNREAD |= dict.fromkeys((".heic", ".heif"), "to read HEIC: pip install pillow-heif")
else:
    register_heif_opener()
    FORMATS, SUFFIXES = (*FORMATS, "HEIF"), (*SUFFIXES, ".heic", ".heif")
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


def sides(resolution: Resolution) -> tuple[int, int]:
    """The height and width that a value of the option ``dataset.resolution`` states."""
    height, width = resolution if isinstance(resolution, list | tuple) else (resolution, resolution)
    return height, width


def decode(content: bytes, resolution: Resolution, channels: int) -> np.ndarray:
    """Decodes one image file to uint8 ``[height, width, channels]``.

    The image is rotated according to its EXIF orientation. For an animation, only the first frame is decoded.
    ``fitted`` describes the changes of size and colour mode.

    Raises:
        BadImage: the image is damaged, is not in one of the allowed formats, or has more than 64 megapixels.
    """
    shape = (*sides(resolution), channels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,}")
            # JPEG files can be decoded at a reduced size, which is faster. The longer side is used for both axes,
            # because the EXIF orientation may exchange them.
            image.draft("RGB", (2 * max(shape[:2]), 2 * max(shape[:2])))
            image.load()
            image = ImageOps.exif_transpose(image)
            return fitted(image, shape)
    except BadImage:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadImage(
            "not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
        ) from error
    except Exception as error:  # a decoder may raise any exception on a damaged file
        raise BadImage(f"{type(error).__name__}: {error}") from error


def fitted(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """The image as uint8 of the given shape ``(height, width, channels)``.

    The image is resized until it just covers height and width, and is then cropped around the centre. One channel
    is grey, and three are RGB; a transparent image is blended with white. Four channels are RGB and the opacity.
    Fully transparent pixels become white, because files contain arbitrary colours there, which no viewer shows.
    """
    height, width, channels = shape
    image = _flat(image, {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.array(image, np.uint8).reshape(shape)
    if channels == 4:
        pixels[pixels[..., 3] == 0, :3] = 255
    return pixels


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """The image in the given colour mode (L, RGB or RGBA) with 8-bit values, blended with white for L and RGB."""
    if image.mode.startswith(("I", "F")):
        values: np.ndarray = np.asarray(image).astype(np.float64)
        # 16-bit values have the fixed range 0..65535. 32-bit integers and floats have no fixed range, so the
        # minimum of the image is mapped to 0 and the maximum to 255.
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (values.min(), values.max())
        scaled = (values - low) / max(high - low, 1e-12) * 255
        image = Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return image if mode == "RGBA" else over_white(image).convert(mode)
    return image.convert("RGB").convert(mode) if mode == "RGBA" else image.convert(mode)


def over_white(image: Image.Image) -> Image.Image:
    """An RGBA image, blended with a white background. The result is opaque, and its mode is still RGBA."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def decode_all(
    named: Iterable[tuple[str, bytes | BadImage]],
    resolution: Resolution,
    channels: int,
    on_error: str,
    skipped: Skipped,
) -> Iterator[tuple[str, np.ndarray]]:
    """Decodes ``(name, content)`` pairs and yields ``(name, image)`` pairs.

    Args:
        named: pairs of the name of a file and its content, or the reason why it cannot be read.
        resolution: side of the square images in pixels, or their height and width.
        channels: 1 for greyscale, 3 for RGB, 4 for RGBA.
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
