"""Nearest neighbours in feature space, by Euclidean distance."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_CELLS = 2**24  # distances computed at a time: 64 MiB


def radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distances ``[n]`` from points ``[n, f]`` to their k-th nearest neighbours in the same array.

    Raises:
        ValueError: there are fewer than k + 1 points.
    """
    if len(points) <= k:
        raise ValueError(
            f"k={k} neighbours of each point need at least {k + 1} points, but there are {len(points)}. "
            "Reduce k, or use more samples"
        )
    centre = points.mean(0)
    return _by_blocks(lambda block, all_: _kth(block, all_, k), points - centre, points - centre)


def neighbours(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pair: the index and the squared distance of each point's nearest neighbour among ``others``.

    Args:
        points: ``[n, f]``.
        others: ``[m, f]``.

    Returns:
        A pair: indices ``[n]`` and squared distances ``[n]``.
    """
    centre = others.mean(0)
    nearest = _by_blocks(_nearest, points - centre, others - centre)
    return nearest[:, 0].astype(int), nearest[:, 1]


def balls_around(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """For each point, the number of balls that contain the point.

    Args:
        points: ``[n, f]``.
        centres: centres of the balls, ``[m, f]``.
        reach: squared radii of the balls, ``[m]``.

    Returns:
        Counts ``[n]``.
    """
    middle = centres.mean(0)
    count = functools.partial(_count, reach=jnp.asarray(reach))
    return _by_blocks(count, points - middle, centres - middle)


def equally_many(fake: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pair: the first n rows of each array, where n is the number of rows of the shorter array."""
    n = min(len(fake), len(real))
    return fake[:n], real[:n]


def _by_blocks(
    of_block: Callable[[jax.Array, jax.Array], jax.Array], points: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """The results of ``of_block`` for all points, computed in blocks of at most ``_CELLS`` distances each."""
    size = max(min(_CELLS // len(others), len(points)), 1)
    on_device = jnp.asarray(others)
    padded = np.concatenate([points, np.zeros((-len(points) % size, points.shape[1]), points.dtype)])
    found = [of_block(jnp.asarray(padded[i : i + size]), on_device) for i in range(0, len(padded), size)]
    return np.concatenate(jax.device_get(found))[: len(points)]


def _squared(a: jax.Array, b: jax.Array) -> jax.Array:
    # The callers centre the points, because the subtraction loses precision for points far from the origin.
    product = jnp.matmul(a, b.T, precision="highest")
    return jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * product, 0)


@functools.partial(jax.jit, static_argnums=2)
def _kth(block: jax.Array, points: jax.Array, k: int) -> jax.Array:
    """Squared distances to the k-th nearest neighbours, where a point is not a neighbour of itself."""
    return -jax.lax.top_k(-_squared(block, points), k + 1)[0][:, -1]


@jax.jit
def _nearest(block: jax.Array, others: jax.Array) -> jax.Array:
    squared = _squared(block, others)
    return jnp.stack([squared.argmin(1).astype(jnp.float32), squared.min(1)], 1)


@jax.jit
def _count(block: jax.Array, centres: jax.Array, reach: jax.Array) -> jax.Array:
    return (_squared(block, centres) <= reach).sum(1)
