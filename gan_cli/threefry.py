"""The booleans of ``jax.random.bernoulli``, in less time on a CPU.

On a CPU, JAX passes all numbers through memory in each of the five groups of rounds of threefry, and XLA computes a
mask for the loss and again for its gradient. This module computes each number in one pass, and a large mask once.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

_RECOMPUTED = 2**13  # largest number of entries that XLA computes again in less time than it stores them
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def bernoulli(key: jax.Array, p: float, shape: tuple[int, ...]) -> jax.Array:
    """Independent booleans that are true with probability ``p``, equal to those of ``jax.random.bernoulli``."""
    if jax.default_backend() != "cpu":
        return jax.random.bernoulli(key, p, shape)
    # Rows and columns, because devices that share the rows then compute only their own.
    sides = shape[0], math.prod(shape[1:])
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, sides, axis) for axis in (0, 1))
    first, second = _threefry(key, jnp.uint32(0), row * jnp.uint32(sides[1]) + column)
    # JAX compares the upper 23 of the 32 bits, as a fraction, with p.
    below: jax.Array = ((first ^ second) >> 9) < jnp.uint32(math.ceil(float(np.float32(p)) * 2**23))
    mask = below.reshape(shape)
    return jax.lax.optimization_barrier(mask) if mask.size > _RECOMPUTED else mask


def _threefry(key: jax.Array, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The block cipher threefry with 20 rounds: two words of 32 bits from the two words of a counter.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry-2x32-20).
    """
    a, b = jax.random.key_data(key)
    keys = a, b, a ^ b ^ jnp.uint32(0x1BD11BDA)
    first, second = first + a, second + b
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = first ^ ((second << rotation) | (second >> (32 - rotation)))
        first, second = first + keys[(group + 1) % 3], second + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second
