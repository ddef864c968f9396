"""Nearest neighbours in feature space."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_CELLS = 2**24  # distances at a time: 64 MiB


def radii(points: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each of ``[n, f]`` points to its k-th nearest other one.

    Raises:
        ValueError: there are not that many.
    """
    if len(points) <= k:
        raise ValueError(f"{len(points)} points have no {k} neighbours each")
    centre = points.mean(0)
    return _by_blocks(lambda block, all_: _kth(block, all_, k), points - centre, points - centre)


def neighbours(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``others`` ``[m, f]`` is nearest to each of ``points`` ``[n, f]``, and its squared distance."""
    centre = others.mean(0)
    nearest = _by_blocks(_nearest, points - centre, others - centre)
    return nearest[:, 0].astype(int), nearest[:, 1]


def balls_around(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """In how many balls of squared radii ``reach`` around ``centres`` each point lies."""
    middle = centres.mean(0)
    count = functools.partial(_count, reach=jnp.asarray(reach))
    return _by_blocks(count, points - middle, centres - middle)


def equally_many(fake: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = min(len(fake), len(real))
    return fake[:n], real[:n]


def _by_blocks(
    of_block: Callable[[jax.Array, jax.Array], jax.Array], points: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """``of_block`` of all points, so many at a time that their distances to all others fit."""
    size = max(min(_CELLS // len(others), len(points)), 1)
    on_device = jnp.asarray(others)
    padded = np.concatenate([points, np.zeros((-len(points) % size, points.shape[1]), points.dtype)])
    found = [of_block(jnp.asarray(padded[i : i + size]), on_device) for i in range(0, len(padded), size)]
    return np.concatenate(jax.device_get(found))[: len(points)]


def _squared(a: jax.Array, b: jax.Array) -> jax.Array:
    # Of points that the callers have centred: far from the origin these differences would cancel.
    product = jnp.matmul(a, b.T, precision="highest")
    return jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * product, 0)


@functools.partial(jax.jit, static_argnums=2)
def _kth(block: jax.Array, points: jax.Array, k: int) -> jax.Array:
    """The k-th nearest but for the point itself, which is nearest to itself."""
    return -jax.lax.top_k(-_squared(block, points), k + 1)[0][:, -1]


@jax.jit
def _nearest(block: jax.Array, others: jax.Array) -> jax.Array:
    squared = _squared(block, others)
    return jnp.stack([squared.argmin(1).astype(jnp.float32), squared.min(1)], 1)


@jax.jit
def _count(block: jax.Array, centres: jax.Array, reach: jax.Array) -> jax.Array:
    return (_squared(block, centres) <= reach).sum(1)
