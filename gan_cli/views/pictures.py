"""Pictures of samples: grids of images, scatter plots of points, and trajectories in the plane."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli.data.scaling import denormalise
from gan_cli.storage import files
from gan_cli.views import SIDE


def grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """A grid of images; small images are magnified by an integer factor.

    Args:
        images: ``[n, h, w, c]``, in uint8 or in [-1, 1].
        columns: the number of images in a row; None for a nearly square grid.
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = max(1, 56 // max(height, width))
    pixels = images if images.dtype == np.uint8 else np.asarray(denormalise(images))
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width, gap = height * zoom, width * zoom, 2
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def pairs(above: np.ndarray, below: np.ndarray) -> Image.Image:
    """A grid with each image of ``above`` ``[n, h, w, c]`` over the image of ``below`` with the same index."""
    rows = [part[i : i + SIDE] for i in range(0, len(above), SIDE) for part in (above, below)]
    return grid(np.concatenate(rows), columns=SIDE)


def maps(examples: np.ndarray, activations: list[np.ndarray]) -> Image.Image:
    """A row of images above rows of activation maps, one row of maps for each stage.

    A brighter colour is a larger activation. The colours of a row are scaled to the largest activation in the row,
    so that the maps of a row are comparable.

    Args:
        examples: images ``[n, h, w, c]`` in uint8.
        activations: for each stage, non-negative maps ``[n, h', w']``.
    """
    n, height, width, _ = examples.shape
    rows = [np.broadcast_to(examples, (n, height, width, 3))]
    for values in activations:
        shares = values / max(float(values.max()), 1e-12)
        down = np.arange(height) * shares.shape[1] // height
        across = np.arange(width) * shares.shape[2] // width
        rows.append(_heat(shares[:, down][:, :, across]))
    return grid(np.concatenate(rows), columns=n)


def _heat(shares: np.ndarray) -> np.ndarray:
    """Colours in uint8 for numbers in [0, 1]: from black over red and yellow to white."""
    ramps = np.clip(3 * shares[..., None] - np.arange(3), 0, 1)
    return np.rint(ramps * 255).astype(np.uint8)


def animate(frames: list[Image.Image]) -> bytes:
    """An endless GIF animation with 20 frames per second."""
    file = io.BytesIO()
    first, *others = (frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames)
    first.save(file, format="GIF", save_all=True, append_images=others, duration=50, loop=0)
    return file.getvalue()


def scatter(points: np.ndarray, real: np.ndarray) -> Image.Image:
    """A scatter plot of ``points`` in colour over the points of ``real`` in grey.

    Args:
        points: ``[n, features]``. The plot shows the first two features. Points with one feature lie on a line.
        real: ``[m, features]``. The plot covers a square around the points of ``real``.
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
    """A line through ``points`` ``[n, 2]`` in order, from light to dark, with the axes through the origin.

    The picture extends to the largest absolute coordinate of the points, and shows this number in a corner.
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


def write(path: Path, image: Image.Image) -> None:
    """Write ``image`` to ``path`` as PNG; an interrupted write leaves no partial file."""
    files.write(path, lambda file: image.save(file, format="PNG"))


def write_neighbours(folder: Path, samples: np.ndarray, neighbours: np.ndarray) -> None:
    """Write ``neighbours.png``: each of the samples ``[n, h, w, c]`` over its nearest training example."""
    write(folder / "neighbours.png", pairs(samples, neighbours))


def write_points(path: Path, points: np.ndarray) -> None:
    """Write ``points`` to ``path``, an ``.npz`` file, as the array ``samples``."""
    files.write(path, lambda file: np.savez(file, samples=points))
