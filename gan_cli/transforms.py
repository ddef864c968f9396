"""Random changes of images, each example's its own, and each differentiable in the image.

All take ``[batch, height, width, channels]`` and a key, and draw for every example by itself.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def flip(x: Array, key: Array) -> Array:
    """Mirror left to right with probability one half."""
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1)), x[:, :, ::-1], x)


def quarter_turns(x: Array, key: Array) -> Array:
    """Turn by 0, 90, 180 or 270 degrees. Images must be square."""
    turned = jnp.stack([jnp.rot90(x, k, (1, 2)) for k in range(4)])
    return turned[jax.random.randint(key, (len(x),), 0, 4), jnp.arange(len(x))]


def shift(x: Array, key: Array, ratio: float, edge: str = "constant") -> Array:
    """Shift by whole pixels, uniform up to ``ratio`` of each side; what comes in is zero, or as ``edge`` says."""
    sides = x.shape[1:3]
    most = [int(side * ratio + 0.5) for side in sides]
    padded = jnp.pad(x, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)), mode=edge)
    starts = [
        jax.random.randint(jax.random.fold_in(key, i), (len(x),), 0, 2 * bound + 1) for i, bound in enumerate(most)
    ]
    rows, columns = (start[:, None] + jnp.arange(side) for start, side in zip(starts, sides, strict=True))
    return padded[jnp.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]


def cut_out(x: Array, key: Array, ratio: float) -> Array:
    """Set a square of ``ratio`` of each side to zero, its centre anywhere (DeVries and Taylor 2017)."""
    outside: Any = False
    for axis, side in enumerate(x.shape[1:3]):
        size = int(side * ratio + 0.5)
        centre = jax.random.randint(jax.random.fold_in(key, axis), (len(x), 1), 0, side + 1 - size % 2)
        place = jnp.arange(side) - (centre - size // 2)
        away = (place < 0) | (place >= size)
        outside = outside | (away[:, :, None] if axis == 0 else away[:, None, :])
    return jnp.where(outside[..., None], x, 0)


def brightness(x: Array, amount: Array) -> Array:
    """Add ``amount`` ``[batch]``."""
    return x + _of_image(amount)


def scale(x: Array, factor: Array) -> Array:
    """Multiply by ``factor`` ``[batch]``."""
    return x * _of_image(factor)


def contrast(x: Array, factor: Array) -> Array:
    """Stretch about the image's mean by ``factor`` ``[batch]``."""
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * _of_image(factor) + mean


def saturation(x: Array, factor: Array) -> Array:
    """Stretch each pixel about the mean of its channels by ``factor`` ``[batch]``."""
    mean = x.mean(3, keepdims=True)
    return (x - mean) * _of_image(factor) + mean


def _of_image(value: Array) -> Array:
    return value[:, None, None, None]
