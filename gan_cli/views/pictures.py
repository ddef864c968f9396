"""Pictures of samples: grids of images, scatter plots of points, and trajectories in the plane."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from gan_cli.data.images import over_white
from gan_cli.data.scaling import denormalise
from gan_cli.storage import files
from gan_cli.views import SIDE


def grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """A picture of images in a grid. Images of a low resolution are magnified by an integer factor.

    Args:
        images: an array ``[n, h, w, c]`` in uint8, or in float with values in [-1, 1]. Between RGBA
            images, the picture is transparent.
        columns: the number of images in a row. With None, the grid is nearly square.
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = max(1, 56 // max(height, width))
    pixels = images if images.dtype == np.uint8 else np.asarray(denormalise(images))
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width, gap = height * zoom, width * zoom, 2
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    canvas[..., 3:] = 0
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def single(image: np.ndarray) -> Image.Image:
    """The picture of one image ``[h, w, c]`` in uint8, without magnification."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def pairs(above: np.ndarray, below: np.ndarray) -> Image.Image:
    """A picture that shows each image of ``above`` directly over the image of ``below`` with the same index.

    Args:
        above: images ``[n, h, w, c]``.
        below: images of the same shape and dtype.
    """
    n = len(above)
    columns = min(SIDE, n)
    white = np.full((-n % columns, *above.shape[1:]), 255 if above.dtype == np.uint8 else 1, above.dtype)
    parts = [np.concatenate([part, white]) for part in (above, below)]  # otherwise, the last two rows share a row
    return grid(np.concatenate([part[i : i + columns] for i in range(0, n, columns) for part in parts]), columns)


def maps(examples: np.ndarray, activations: list[np.ndarray]) -> Image.Image:
    """A picture with a row of images, and below it one row of maps for each array in ``activations``.

    A brighter colour means a larger value. The colours of each row are scaled to the largest value in this row.
    Maps in one row are therefore comparable, and maps in different rows are not.

    Args:
        examples: images ``[n, h, w, c]`` in uint8.
        activations: a list of arrays ``[n, h', w']`` of non-negative values: one map for each image.
    """
    n, height, width, channels = examples.shape
    colours = max(channels, 3)
    rows = [np.broadcast_to(examples, (n, height, width, colours))]
    for values in activations:
        shares = values / max(float(values.max()), 1e-12)
        down = np.arange(height) * shares.shape[1] // height
        across = np.arange(width) * shares.shape[2] // width
        heat = _heat(shares[:, down][:, :, across])
        rows.append(np.pad(heat, [(0, 0)] * 3 + [(0, colours - 3)], constant_values=255))
    return grid(np.concatenate(rows), columns=n)


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


def animate(frames: list[Image.Image]) -> bytes:
    """The bytes of a GIF file that repeats ``frames`` endlessly, at 20 frames per second.

    RGBA frames are blended with white, because a pixel of a GIF cannot be partly transparent.
    """
    file = io.BytesIO()
    opaque = (over_white(frame).convert("RGB") if frame.mode == "RGBA" else frame for frame in frames)
    first, *others = (frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in opaque)
    first.save(file, format="GIF", save_all=True, append_images=others, duration=50, loop=0)
    return file.getvalue()


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


def write(path: Path, image: Image.Image, text: PngInfo | None = None) -> None:
    """Write ``image`` as PNG, with the metadata ``text``. An interrupted write leaves no partial file."""
    files.write(path, lambda file: image.save(file, format="PNG", pnginfo=text))


def write_points(path: Path, points: np.ndarray) -> None:
    """Write an ``.npz`` file with ``points`` as the array ``samples``."""
    files.write(path, lambda file: np.savez(file, samples=points))
