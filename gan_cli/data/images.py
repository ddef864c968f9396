"""Decodes image files of any size, format and colour mode into arrays, and rejects malicious files."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

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
# Arrays [h, w] or [h, w, c] of NumPy. Folders of pictures contain them for other purposes, so that ``folder`` reads
# them as images only where there are no pictures.
ARRAY_SUFFIX = ".npy"
# The colour mode of Pillow for each number of channels that has colours.
MODES: dict[int, str] = {1: "L", 3: "RGB", 4: "RGBA"}
# Tags of TIFF files.
_BITS, _PLANAR = 258, 284
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
    """Counter of the images that ``on_error=skip`` leaves out.

    Attributes:
        count: the number of images.
        reason: why the first of them cannot be decoded.
    """

    count: int = 0
    reason: str = ""

    def add(self, name: str, error: BadImage) -> None:
        """Count an image, and log a warning with its name and the reason."""
        self.count += 1
        self.reason = self.reason or str(error)
        log.warning(SKIPPED, name, error)


def is_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are the preamble of a DICOM file."""
    return start[128:132] == b"DICM"


def sides(resolution: Resolution) -> tuple[int, int]:
    """The height and width that a value of the option ``dataset.resolution`` states."""
    height, width = resolution if isinstance(resolution, list | tuple) else (resolution, resolution)
    return height, width


def decode(content: bytes, resolution: Resolution | None, channels: int, bits: int = 8) -> np.ndarray:
    """Decodes one image file to uint8 or uint16 ``[height, width, channels]``.

    With ``resolution=None``, the image keeps its height and width. Otherwise, ``fitted`` describes the changes of
    size and colour mode. The image is rotated according to its EXIF orientation. Of an animation or a DICOM file,
    only the first frame is decoded. With numbers of channels other than 1, 3 and 4, the channels are the bands of
    all pages of a TIFF file, or those of an array in an ``.npy`` file.

    Raises:
        BadImage: the image is damaged, is not in one of the allowed formats, has more than 64 megapixels, or does
            not have the number of channels.
        UserError: the package that reads DICOM files is not installed.
    """

    def shape(height: int, width: int) -> tuple[int, int, int]:
        return (*((height, width) if resolution is None else sides(resolution)), channels)

    def of_values(values: np.ndarray) -> np.ndarray:
        return fitted_values(values, shape(*values.shape[:2]), bits)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if content.startswith(np.lib.format.MAGIC_PREFIX):
                return of_values(array_values(content))
            if is_dicom(content):
                from gan_cli.data.dicom import Frames

                return of_values(Frames(content)[0])
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check_size(image)
            if channels not in MODES:
                return of_values(_bands(image, content, channels))
            if bits == 16 and (values := _colours_of_16_bits(image, content)) is not None:
                return of_values(values)
            # JPEG files can be decoded at a reduced size, which is faster. The longer side is used for both axes,
            # because the EXIF orientation may exchange them.
            if resolution is not None:
                image.draft("RGB", (2 * max(sides(resolution)), 2 * max(sides(resolution))))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return fitted(image, shape(image.height, image.width), bits)
    except (BadImage, UserError):
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadImage(
            "not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
        ) from error
    except Exception as error:  # a decoder may raise any exception on a damaged file
        raise BadImage(f"{type(error).__name__}: {error}") from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,}")


def fitted(image: Image.Image, shape: tuple[int, int, int], bits: int = 8) -> np.ndarray:
    """The image as uint8 or uint16 of the given shape ``(height, width, channels)``.

    The image is resized until it just covers height and width, and is then cropped around the centre. One channel
    is grey, and three are RGB; a transparent image is blended with white. Four channels are RGB and the opacity.
    Fully transparent pixels become white, because files contain arbitrary colours there, which no viewer shows.
    An image of 8 bits per value is multiplied by 257 to fill the range of 16 bits.
    """
    height, width, channels = shape
    if bits == 16 and image.mode.startswith(("I", "F")):
        return fitted_values(_grey(image), shape, bits)
    image = _flat(image, MODES[channels])
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.array(image, np.uint8).reshape(shape)
    if channels == 4:
        pixels[pixels[..., 3] == 0, :3] = 255
    return pixels if bits == 8 else pixels.astype(np.uint16) * 257


def fitted_values(values: np.ndarray, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """Values from 0 to 1 as an image of the given shape ``(height, width, channels)`` in uint8 or uint16.

    Size and colours change as in ``fitted``.

    Args:
        values: float32 ``[h, w, c]``: grey (1), grey and opacity (2), RGB (3), RGB and opacity (4), or any other
            number of channels.
        shape: the shape of the result.
        bits: 8 or 16.

    Raises:
        BadImage: the image has another number of channels than ``shape``, and one of the two has no colours.
    """
    height, width, channels = shape
    found = values.shape[2]
    if found != channels:
        if found > 4 or channels not in MODES:
            raise BadImage(_other_channels(found, channels))
        values = _recoloured(values, channels)
    # As in Pillow, colours are resized in proportion to their opacity, so that hidden colours do not bleed.
    weighted = channels == 4 and values.shape[:2] != (height, width)
    if weighted:
        values = np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)
    scaled: list[np.ndarray] = [
        np.asarray(ImageOps.fit(Image.fromarray(np.array(band)), (width, height), Image.Resampling.LANCZOS))
        for band in np.moveaxis(values, -1, 0)
    ]
    most = 2**bits - 1
    resized: np.ndarray = np.stack(scaled, axis=-1).astype(np.float64)
    if weighted:
        resized[..., :3] /= np.maximum(resized[..., 3:], 0.5 / most)
    pixels: np.ndarray = np.clip(np.rint(resized * most), 0, most)
    if channels == 4:
        pixels[pixels[..., 3] == 0, :3] = most
    return pixels.astype(np.uint16 if bits == 16 else np.uint8)


def _other_channels(found: int, wanted: int) -> str:
    return f"it has {found} channel{'' if found == 1 else 's'}, not {wanted}"


def _recoloured(values: np.ndarray, channels: int) -> np.ndarray:
    """Values ``[h, w, 1 to 4]`` with 1, 3 or 4 channels. Without opacity, the image is blended with white."""
    colours, opacity = (values[..., :-1], values[..., -1:]) if values.shape[2] in (2, 4) else (values, None)
    if channels == 4:
        colours = np.broadcast_to(colours, (*values.shape[:2], 3))
        return np.concatenate([colours, np.ones_like(colours[..., :1]) if opacity is None else opacity], axis=-1)
    if opacity is not None:
        colours = colours * opacity + (1 - opacity)
    if channels == 1 and colours.shape[2] == 3:
        return colours @ np.array([[0.299], [0.587], [0.114]], np.float32)  # the weights of Pillow: ITU-R 601-2
    return np.broadcast_to(colours, (*values.shape[:2], channels))


def unit_values(values: np.ndarray) -> np.ndarray:
    """Pixel values as float32 from 0 to 1.

    Integers of 8 and 16 bits and truth values have a fixed range. All other types have none, so that the minimum of
    the image becomes 0 and its maximum 1.

    Raises:
        BadImage: the image contains NaN or infinity, or its values are not numbers.
    """
    if values.dtype.kind not in "buif":
        raise BadImage(f"its values are of the type {values.dtype}")
    if values.dtype.kind == "b" or values.dtype.str[1:] in ("u1", "u2"):
        most = 1 if values.dtype.kind == "b" else np.iinfo(values.dtype).max
        return (values / np.float64(most)).astype(np.float32)
    if not np.isfinite(values).all():
        raise BadImage("it contains NaN or infinity")
    low, high = float(values.min()), float(values.max())
    return ((values.astype(np.float64) - low) / max(high - low, 1e-12)).astype(np.float32)


def array_values(content: bytes) -> np.ndarray:
    """The image in an ``.npy`` file, ``[h, w]`` or ``[h, w, c]``, as values from 0 to 1 ``[h, w, c]``."""
    values: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    if values.ndim not in (2, 3) or not values.size:
        raise BadImage(f"an array of shape {values.shape}; the shape must be [height, width, channels]")
    if values.shape[0] * values.shape[1] > MAX_PIXELS:
        raise BadImage(f"{values.shape[1]} x {values.shape[0]} pixels exceed the limit of {MAX_PIXELS:,}")
    return unit_values(values.reshape(*values.shape[:2], -1))


def _bands(image: Image.Image, content: bytes, channels: int) -> np.ndarray:
    """The bands of all pages of an image, ``[h, w, channels]`` with values from 0 to 1. Colours are not converted.

    Raises:
        BadImage: the pages differ in size, or do not have ``channels`` bands in total.
    """
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > channels:
        raise BadImage(f"it has {pages} pages, but {channels} channels are needed")
    bands = []
    for page in range(pages):
        if pages > 1:
            image.seek(page)
            _check_size(image)
        values = _colours_of_16_bits(image, content, page) if len(image.getbands()) > 1 else None
        if values is None:
            turned = ImageOps.exif_transpose(image)
            if turned.mode == "P":
                turned = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
            values = _grey(turned) if turned.mode.startswith(("I", "F")) else unit_values(_stacked(turned))
        bands.append(values)
    if len({band.shape[:2] for band in bands}) > 1:
        raise BadImage("its pages differ in size")
    found = sum(band.shape[2] for band in bands)
    if found != channels:
        raise BadImage(_other_channels(found, channels))
    return np.concatenate(bands, axis=-1)


def _colours_of_16_bits(image: Image.Image, content: bytes, page: int = 0) -> np.ndarray | None:
    """A PNG or TIFF page of more than one band with 16 bits per value, as values from 0 to 1 ``[h, w, c]``.

    Pillow keeps the high byte of each value only. The low bytes come from a second reading of the file in the
    opposite byte order. For all other images, the function returns None.

    Raises:
        BadImage: a TIFF file of 16 bits stores its channels one after the other.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8:  # Pillow misreads these files
        raise BadImage("its 16-bit channels are stored in separate planes; store them interleaved")
    tiles = getattr(image, "tile", None) if image.format in ("PNG", "TIFF") else None
    layout = _layout(tiles[0].args) if tiles else ""
    if ";16" not in layout or len(image.getbands()) == 1:
        return None
    other = Image.open(io.BytesIO(content), formats=FORMATS)
    if page:
        other.seek(page)
    grey = layout.startswith("LA")
    try:
        other.tile = [tile._replace(args=_of_low_bytes(tile.args)) for tile in other.tile]
        low = _stacked(ImageOps.exif_transpose(other)).astype(np.float64)
    except ValueError:  # Pillow has no such layout, so that 8 bits of each value remain
        return None
    if grey:
        values = low[..., 0::2] * 256 + low[..., 1::2]
    else:
        values = _stacked(ImageOps.exif_transpose(image)) * 256.0 + low
    return (values / 65535).astype(np.float32)


def has_16_bits(image: Image.Image) -> bool:
    """Whether the file of an image that is not loaded yet is a PNG or TIFF file with integers of 16 bits."""
    tiles: Any = getattr(image, "tile", None) if image.format in ("PNG", "TIFF") else None
    return image.mode.startswith("I;16") or (bool(tiles) and ";16" in _layout(tiles[0].args))


def _layout(arguments: Any) -> str:
    """The layout of the values in the file, from the arguments of a decoder of Pillow, e.g. "RGB;16B"."""
    return str(arguments if isinstance(arguments, str) else arguments[0])


def _of_low_bytes(arguments: Any) -> Any:
    """The arguments of a decoder that reads the low byte of each value of 16 bits instead of the high byte.

    Grey with opacity is read as RGBA of 8 bits: the high and the low byte of grey, and those of the opacity.
    """
    layout = _layout(arguments)
    opposite = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    wanted = "RGBA" if layout.startswith("LA") else layout[:-1] + opposite[layout[-1]]
    return wanted if isinstance(arguments, str) else (wanted, *arguments[1:])


def _stacked(image: Image.Image) -> np.ndarray:
    """The values of an image, ``[h, w, bands]``."""
    values: np.ndarray = np.asarray(image)
    return values.reshape(*values.shape[:2], -1)


def _grey(image: Image.Image) -> np.ndarray:
    """An image of one band with more than 8 bits, as values from 0 to 1 ``[h, w, 1]``."""
    values: np.ndarray = np.asarray(image)
    return unit_values(values.astype(np.uint16) if image.mode.startswith("I;16") else values)[..., None]


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
    if image.mode == mode:
        return image
    return image.convert("RGB").convert(mode) if mode == "RGBA" else image.convert(mode)


def over_white(image: Image.Image) -> Image.Image:
    """An RGBA image, blended with a white background. The result is opaque, and its mode is still RGBA."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def decode_all(
    named: Iterable[tuple[str, bytes | BadImage]],
    resolution: Resolution | None,
    channels: int,
    on_error: str,
    skipped: Skipped,
    bits: int = 8,
) -> Iterator[tuple[str, np.ndarray]]:
    """Decodes ``(name, content)`` pairs and yields ``(name, image)`` pairs.

    Args:
        named: pairs of the name of a file and its content, or the reason why it cannot be read.
        resolution: side of the square images in pixels, or their height and width. With None, each image keeps its
            height and width.
        channels: 1 for greyscale, 3 for RGB, 4 for RGBA, or another number of channels without colours.
        on_error: treatment of images that cannot be decoded. With ``"skip"``, the function logs a warning for each
            such image and continues. With ``"refuse"``, the first such image raises a UserError.
        skipped: counter that is incremented for each skipped image.
        bits: bits per value, 8 or 16.

    Raises:
        UserError: an image cannot be decoded and ``on_error`` is ``"refuse"``.
    """
    for name, content in named:
        try:
            if isinstance(content, BadImage):
                raise content
            yield name, decode(content, resolution, channels, bits)
        except BadImage as error:
            if on_error == "refuse":
                raise UserError(refusal(name, error)) from error
            skipped.add(name, error)
