"""Random transformations of images, differentiable with respect to the pixels.

All functions map images ``[batch, height, width, channels]`` to images of the same shape. Functions with a
parameter ``key`` draw independent random numbers for each example. All other functions take one amount or factor
per example, and change colours: in images of four channels (RGBA), they leave the opacity unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def each_frame(change: Callable[[Array], Array], x: Array) -> Array:
    """``change`` of images ``x`` or of clips ``[batch, frames, height, width, channels]``, alike for all frames."""
    changed: Array = jax.vmap(change, 1, 1)(x) if x.ndim == 5 else change(x)
    return changed


def flip(x: Array, key: Array) -> Array:
    """Mirror each image left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1)), x[:, :, ::-1], x)


def quarter_turns(x: Array, key: Array) -> Array:
    """Rotate each image by 0, 90, 180 or 270 degrees with equal probability; by 0 or 180 if it is not square."""
    turns = range(4) if x.shape[1] == x.shape[2] else (0, 2)
    turned = jnp.stack([jnp.rot90(x, k, (1, 2)) for k in turns])
    return turned[jax.random.randint(key, (len(x),), 0, len(turns)), jnp.arange(len(x))]


def shift(x: Array, key: Array, ratio: float, edge: str = "constant") -> Array:
    """Shift each image along both axes by random numbers of pixels.

    The shift along an axis is at most ``ratio`` times the length of the axis. The argument ``edge`` is the ``mode``
    of ``jax.numpy.pad`` that fills the uncovered pixels. With ``"constant"``, the uncovered pixels become zero.
    """
    sides = x.shape[1:3]
    most = [int(side * ratio + 0.5) for side in sides]
    padded = jnp.pad(x, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)), mode=edge)
    starts = [
        jax.random.randint(jax.random.fold_in(key, i), (len(x),), 0, 2 * bound + 1) for i, bound in enumerate(most)
    ]
    rows, columns = (start[:, None] + jnp.arange(side) for start, side in zip(starts, sides, strict=True))
    return padded[jnp.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]


def cut_out(x: Array, key: Array, ratio: float) -> Array:
    """Set a rectangle of each image to zero, at a uniformly random position.

    The height and width of the rectangle are ``ratio`` times the height and width of the image (DeVries and Taylor
    2017).
    """
    outside: Any = False  # replaced by an array at the first axis
    for axis, side in enumerate(x.shape[1:3]):
        size = int(side * ratio + 0.5)
        centre = jax.random.randint(jax.random.fold_in(key, axis), (len(x), 1), 0, side + 1 - size % 2)
        place = jnp.arange(side) - (centre - size // 2)
        away = (place < 0) | (place >= size)
        outside = outside | (away[:, :, None] if axis == 0 else away[:, None, :])
    return jnp.where(outside[..., None], x, 0)


def _of_colours(change: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """``change``, applied to the first three channels only if there are four channels (RGBA)."""

    @functools.wraps(change)
    def changed(x: Array, amount: Array) -> Array:
        if x.shape[-1] != 4:
            return change(x, amount)
        return jnp.concatenate([change(x[..., :3], amount), x[..., 3:]], axis=-1)

    return changed


@_of_colours
def brightness(x: Array, amount: Array) -> Array:
    """Add ``amount`` ``[batch]`` to all values of each image."""
    return x + _of_image(amount)


@_of_colours
def scale(x: Array, factor: Array) -> Array:
    """Multiply all values of each image by ``factor`` ``[batch]``."""
    return x * _of_image(factor)


@_of_colours
def contrast(x: Array, factor: Array) -> Array:
    """Scale the deviation of each value from the image's mean by ``factor`` ``[batch]``."""
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * _of_image(factor) + mean


@_of_colours
def saturation(x: Array, factor: Array) -> Array:
    """Scale the deviation of each value from the pixel's mean over the channels by ``factor`` ``[batch]``."""
    mean = x.mean(3, keepdims=True)
    return (x - mean) * _of_image(factor) + mean


def _of_image(value: Array) -> Array:
    return value[:, None, None, None]
