"""Pictures of samples: grids of images, scatter plots of points, and trajectories in the plane.

Images with 1, 3 or 4 channels are shown in grey, RGB or RGBA. Of images with another number of channels, pictures
show the first channel in grey. Images of 16 bits are scaled to 8 bits.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont
from PIL.GifImagePlugin import getdata, getheader
from PIL.PngImagePlugin import PngInfo

from gan_cli.data.images import over_white
from gan_cli.data.scaling import denormalise
from gan_cli.storage import marks
from gan_cli.storage.marks import Origin
from gan_cli.views import SIDE

_WIDEST = 1024  # the width and height in pixels that a picture with rows of inputs and outputs should not exceed
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # the colour types of PNG by number of channels


def grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """A picture of images in a grid. Images of a low resolution are magnified by an integer factor.

    Args:
        images: an array ``[n, h, w, c]`` in uint8 or uint16, or in float with values in [-1, 1]. Between RGBA
            images, the picture is transparent.
        columns: the number of images in a row. With None, the grid is nearly square.
    """
    images = shown(images)
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = _zoom(height, width)
    pixels = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width, gap = height * zoom, width * zoom, 2
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    canvas[..., 3:] = 0
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def _zoom(height: int, width: int) -> int:
    return max(1, 56 // max(height, width))


def shown(images: np.ndarray) -> np.ndarray:
    """Images ``[..., h, w, c]`` as pictures show them: uint8 with 1, 3 or 4 channels.

    Args:
        images: an array in uint8 or uint16, or in float with values in [-1, 1].
    """
    channels = images.shape[-1]
    images = images if channels in _COLOUR_TYPES else images[..., :1]
    if images.dtype == np.uint16:
        return np.rint(images / 257).astype(np.uint8)  # 65,535 = 257 * 255
    return images if images.dtype == np.uint8 else np.asarray(denormalise(images))


def file_of(image: np.ndarray, software: str = "") -> tuple[str, bytes]:
    """One image without magnification and without loss, as a file.

    Images with 1, 3 or 4 channels are PNG files. Other images are ``.npy`` files, because PNG has no such images.

    Args:
        image: an array ``[h, w, c]`` in uint8 or uint16.
        software: the entry ``Software`` of a PNG file, or the last bytes of an ``.npy`` file after its array,
            which readers ignore. An empty text is left out.

    Returns:
        A pair: the suffix of the file, such as ``.png``, and its content.
    """
    file = io.BytesIO()
    if image.shape[-1] not in _COLOUR_TYPES:
        np.save(file, image, allow_pickle=False)
        return ".npy", file.getvalue() + software.encode()
    if image.dtype == np.uint16:
        return ".png", _png16(image, software)
    text = PngInfo()
    if software:
        text.add_text("Software", software)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG", pnginfo=text)
    return ".png", file.getvalue()


def _png16(image: np.ndarray, software: str) -> bytes:
    """A PNG file of a uint16 image, because Pillow writes 16 bits per value for grey images only.

    Each row is stored as its difference to the row above, which makes the file smaller: filter type 2, "up", of the
    PNG specification (ISO/IEC 15948).
    """
    height, width, channels = image.shape
    rows = np.frombuffer(image.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # modulo 256, as PNG defines it
    filtered = np.pad(differences, ((0, 0), (1, 0)), constant_values=2)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    text = chunk(b"tEXt", b"Software\0" + software.encode("latin-1")) if software else b""
    data = chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + data + chunk(b"IEND", b"")


def rows(parts: Sequence[np.ndarray]) -> Image.Image:
    """A picture that shows the images with index i of all ``parts`` directly below each other.

    If the parts differ in their numbers of channels, all are shown in RGB, or in RGBA if one of them is RGBA.

    Args:
        parts: arrays ``[n, h, w, c]`` of images of equal height and width, in a format that ``shown`` accepts.
    """
    prepared = [shown(part) for part in parts]
    channels = max(part.shape[-1] for part in prepared)
    prepared = [_widened(part, channels) for part in prepared]
    n, height, width, _ = prepared[0].shape
    columns = min(_columns(height, width), n)
    white = np.full((-n % columns, *prepared[0].shape[1:]), 255, np.uint8)
    filled = [np.concatenate([part, white]) for part in prepared]  # otherwise, two kinds of rows share a row
    return grid(np.concatenate([part[i : i + columns] for i in range(0, n, columns) for part in filled]), columns)


def shown_in_rows(height: int, width: int, kinds: int) -> int:
    """The number of images of this size that a picture of ``rows`` with ``kinds`` parts should show."""
    down = min(SIDE, max(1, _WIDEST // (height * _zoom(height, width))))
    return _columns(height, width) * max(1, down // kinds)


def row_labels(height: int, width: int, n: int, kinds: Sequence[str]) -> list[str]:
    """The label of each row of the picture that ``rows`` makes of ``n`` images of this size and of these kinds."""
    return list(kinds) * math.ceil(n / _columns(height, width))


def _columns(height: int, width: int) -> int:
    return min(SIDE, max(1, _WIDEST // (width * _zoom(height, width))))


def _widened(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 images with 1, 3 or 4 channels as images with at least as many channels."""
    if images.shape[-1] == 1 and channels > 1:
        images = images.repeat(3, axis=-1)
    missing = channels - images.shape[-1]
    return np.pad(images, [(0, 0)] * 3 + [(0, missing)], constant_values=255) if missing else images


def maps(examples: np.ndarray, activations: list[np.ndarray]) -> Image.Image:
    """A picture with a row of images, and below it one row of maps for each array in ``activations``.

    A brighter colour means a larger value. The colours of each row are scaled to the largest value in this row.
    Maps in one row are therefore comparable, and maps in different rows are not.

    Args:
        examples: images ``[n, h, w, c]``, in a format that ``shown`` accepts.
        activations: a list of arrays ``[n, h', w']`` of non-negative values: one map for each image.
    """
    examples = shown(examples)
    n, height, width, channels = examples.shape
    colours = max(channels, 3)
    strips = [_widened(examples, colours)]
    for values in activations:
        shares = values / max(float(values.max()), 1e-12)
        down = np.arange(height) * shares.shape[1] // height
        across = np.arange(width) * shares.shape[2] // width
        heat = _heat(shares[:, down][:, :, across])
        strips.append(_widened(heat, colours))
    return grid(np.concatenate(strips), columns=n)


def _heat(shares: np.ndarray) -> np.ndarray:
    """RGB colours in uint8 for values in [0, 1]. Rising values go from black to red, yellow and white."""
    ramps = np.clip(3 * shares[..., None] - np.arange(3), 0, 1)
    return np.rint(ramps * 255).astype(np.uint8)


def matrix(values: np.ndarray) -> Image.Image:
    """A picture of a matrix ``[rows, columns]``: each value is a pixel, and brighter pixels are larger values."""
    finite = np.nan_to_num(values)
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    zoom = max(1, 512 // max(values.shape))
    heat = _heat((finite - low) / max(high - low, 1e-12))
    return Image.fromarray(heat.repeat(zoom, axis=0).repeat(zoom, axis=1))


def animate(frames: list[Image.Image], milliseconds: int = 50) -> bytes:
    """The bytes of a GIF file that repeats ``frames`` endlessly, each for a number of milliseconds.

    RGBA frames are blended with white, because a pixel of a GIF cannot be partly transparent. Equal neighbours stay
    separate frames. ``Image.save`` would join them into a longer one, which readers of clips count once.
    """
    opaque = (over_white(frame).convert("RGB") if frame.mode == "RGBA" else frame for frame in frames)
    coloured = [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in opaque]
    header, _ = getheader(coloured[0], info={"loop": 0})
    parts = [*header, *getdata(coloured[0], duration=milliseconds)]
    for before, frame in pairwise(coloured):
        changed = ImageChops.difference(before.convert("RGB"), frame.convert("RGB")).getbbox() or (0, 0, 1, 1)
        parts += getdata(frame.crop(changed), changed[:2], duration=milliseconds, include_color_table=True)
    return b"".join([*parts, b";"])


def scatter(points: np.ndarray, real: np.ndarray) -> Image.Image:
    """A scatter plot of ``points`` in colour over the points of ``real`` in grey.

    Args:
        points: an array ``[n, features]``. The plot shows the first two features. If there is only one feature, the
            points lie on a line.
        real: an array ``[m, features]``. The plot covers a square around these points.
    """
    size, oversampling = 512, 2
    side = size * oversampling
    real, points = (np.pad(cloud, ((0, 0), (0, 1)))[:, :2] for cloud in (real, points))
    low, high = real.min(0), real.max(0)
    centre, half = (low + high) / 2, 0.6 * float(max((high - low).max(), 1e-6))
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    for cloud, colour, radius in ((real, (150, 150, 150, 90), 3), (points, (214, 69, 36, 130), 3)):
        places = (np.nan_to_num(cloud) - centre) / half
        for x, y in np.clip((places + 1) / 2, -0.1, 1.1) * side:
            draw.ellipse((x - radius, side - y - radius, x + radius, side - y + radius), fill=colour)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def trajectory(points: np.ndarray) -> Image.Image:
    """A picture of a line through ``points`` in order, and of the two coordinate axes.

    The line starts light and ends dark. The picture extends to the largest absolute coordinate of the points, and
    shows this value in a corner. Points that are not finite are left out.

    Args:
        points: an array ``[n, 2]``.
    """
    size, oversampling = 512, 2
    side = size * oversampling
    points = points[np.isfinite(points).all(1)]
    reach = max(float(np.abs(points).max(initial=0.0)), 1e-12)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    places = (points / (1.1 * reach) * (1, -1) + 1) / 2 * side
    middle = side // 2
    draw.line((0, middle, side, middle), fill=(220, 220, 220), width=2)
    draw.line((middle, 0, middle, side), fill=(220, 220, 220), width=2)
    light, dark, blue = np.array((246, 196, 170)), np.array((150, 30, 10)), (60, 110, 200)
    for i, (start, end) in enumerate(pairwise(places)):
        colour = light + (dark - light) * i / max(len(places) - 1, 1)
        draw.line((*start, *end), fill=tuple(np.rint(colour).astype(int)), width=4)
    for (x, y), colour in ((places[0], blue), (places[-1], tuple(dark))) if len(places) else ():
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=colour)
    font = ImageFont.load_default(28)
    draw.text((12, 10), f"largest coordinate {reach:.3g}; blue: start", fill=(90, 90, 90), font=font)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def write(path: Path, image: Image.Image, origin: Origin | None, labels: Sequence[str] = ()) -> None:
    """Write ``image`` as PNG. An interrupted write leaves no partial file.

    Args:
        path: the path of the file.
        image: the picture.
        origin: the origin that the provenance mark states. None for a picture without generated examples.
        labels: the labels of the rows of the picture, from top to bottom. They become the entry ``Rows`` of the
            file's metadata, a list in JSON, which the report reads.
    """
    text, file = PngInfo(), io.BytesIO()
    if labels:
        text.add_text("Rows", json.dumps(list(labels)))
    image.save(file, format="PNG", pnginfo=text)
    marks.write(path, file.getvalue(), origin)
