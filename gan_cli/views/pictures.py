"""Pictures of samples: a grid of images, or points in the plane over the real ones."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli.data.scaling import denormalise
from gan_cli.storage import files

SIDE = 8  # a grid shows SIDE x SIDE images
POINTS = 2500  # a scatter plot shows this many points (Lin et al. 2018, PacGAN, count modes on as many)


def grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """``[n, h, w, c]`` images, uint8 or in [-1, 1], as a mosaic, small ones magnified by whole pixels.

    Args:
        columns: how many side by side; near-square without.
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
    """Rows of images in turn: of ``above`` ``[n, h, w, c]``, and under each its partner of ``below``."""
    rows = [part[i : i + SIDE] for i in range(0, len(above), SIDE) for part in (above, below)]
    return grid(np.concatenate(rows), columns=SIDE)


def maps(examples: np.ndarray, found: list[np.ndarray]) -> Image.Image:
    """Examples ``[n, h, w, c]`` side by side, uint8; below each its maps ``[n, h', w']``, from dark to bright.

    A map's brightness says the same for all examples: the brightest is the largest value of the row.
    """
    n, height, width, _ = examples.shape
    rows = [np.broadcast_to(examples, (n, height, width, 3))]
    for values in found:
        shares = values / max(float(values.max()), 1e-12)
        down = np.arange(height) * shares.shape[1] // height
        across = np.arange(width) * shares.shape[2] // width
        rows.append(_heat(shares[:, down][:, :, across]))
    return grid(np.concatenate(rows), columns=n)


def _heat(shares: np.ndarray) -> np.ndarray:
    """Numbers in 0..1 as colours from black over red and yellow to white, uint8."""
    ramps = np.clip(3 * shares[..., None] - np.arange(3), 0, 1)
    return np.rint(ramps * 255).astype(np.uint8)


def animate(frames: list[Image.Image]) -> bytes:
    """A GIF of pictures that goes on for ever, 20 a second."""
    file = io.BytesIO()
    first, *others = (frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames)
    first.save(file, format="GIF", save_all=True, append_images=others, duration=50, loop=0)
    return file.getvalue()


def scatter(points: np.ndarray, real: np.ndarray) -> Image.Image:
    """The first two coordinates of ``points`` ``[n, features]`` in colour, over those of ``real`` in grey.

    Where there is one coordinate only, they lie on a line.
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
    """The trajectory of ``points`` ``[n, 2]`` in the plane, from light to dark, about the origin, which is marked.

    The picture reaches as far as the outermost point; how far that is stands in its corner.
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
    draw.text((12, 10), f"to {reach:.3g} each way; blue: start", fill=(90, 90, 90), font=font)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def write(path: Path, image: Image.Image) -> None:
    """Save as PNG; the file appears whole or not at all."""
    files.write(path, lambda file: image.save(file, format="PNG"))


def write_neighbours(folder: Path, samples: np.ndarray, neighbours: np.ndarray) -> None:
    """Save ``neighbours.png``: images ``[n, h, w, c]``, and under each its nearest training example."""
    write(folder / "neighbours.png", pairs(samples, neighbours))


def write_points(path: Path, points: np.ndarray) -> None:
    """Save as ``.npz`` under the name ``samples``."""
    files.write(path, lambda file: np.savez(file, samples=points))
