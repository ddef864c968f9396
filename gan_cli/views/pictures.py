"""Pictures of samples: a grid of images, or points in the plane over the real ones."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli import files

SIDE = 8  # a grid shows SIDE x SIDE images
POINTS = 2500  # a scatter plot shows this many points (Lin et al. 2018, PacGAN, count modes on as many)


def grid(images: np.ndarray) -> Image.Image:
    """``[n, h, w, c]`` images in [-1, 1] as a near-square mosaic, small ones magnified by whole pixels."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = max(1, 56 // max(height, width))
    pixels = np.clip(np.rint(np.nan_to_num(images + 1) * 127.5), 0, 255).astype(np.uint8)
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width, gap = height * zoom, width * zoom, 2
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def scatter(points: np.ndarray, real: np.ndarray) -> Image.Image:
    """The first two coordinates of ``points`` ``[n, features]`` in colour, over those of ``real`` in grey."""
    size, oversampling = 512, 2
    side = size * oversampling
    low, high = real[:, :2].min(0), real[:, :2].max(0)
    centre, half = (low + high) / 2, 0.6 * float(max((high - low).max(), 1e-6))
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    for cloud, colour, radius in ((real, (150, 150, 150, 90), 3), (points, (214, 69, 36, 130), 3)):
        places = (np.nan_to_num(cloud[:, :2]) - centre) / half
        for x, y in np.clip((places + 1) / 2, -0.1, 1.1) * side:
            draw.ellipse((x - radius, side - y - radius, x + radius, side - y + radius), fill=colour)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def way(points: np.ndarray) -> Image.Image:
    """The way that ``points`` ``[n, 2]`` take in the plane, from light to dark, about the origin, which is marked.

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


def write_points(path: Path, points: np.ndarray) -> None:
    """Save as ``.npz`` under the name ``samples``."""
    files.write(path, lambda file: np.savez(file, samples=points))
