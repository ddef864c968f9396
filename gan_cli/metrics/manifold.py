"""Whether samples lie where data lie, and data where samples do, by nearest neighbours in feature space."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import Higher
from gan_cli.types import PositiveInt

_CELLS = 2**24  # distances at a time: 64 MiB


def precision_recall(fake: np.ndarray, real: np.ndarray, *, k: PositiveInt = 3) -> dict[str, float]:
    """The share of samples within the real data's manifold, and of real data within the samples'
    (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of balls around its members that reach to their k-th neighbours. Of as many
    samples as real data, as there: a larger set has smaller balls.
    """
    fake, real = _alike(fake, real)
    return {
        "precision": Higher((_balls_around(fake, real, radii(real, k)) > 0).mean()),
        "recall": Higher((_balls_around(real, fake, radii(fake, k)) > 0).mean()),
    }


def density_coverage(fake: np.ndarray, real: np.ndarray, *, k: PositiveInt = 5) -> dict[str, float]:
    """How many real balls hold a sample, over k; and the share of real balls that hold one (Naeem et al. 2020,
    eq. 3 and 4). Both are about 1 where the two sets are alike; outliers among the real data weigh less than in
    precision and recall."""
    fake, real = _alike(fake, real)
    reach = radii(real, k)
    _, nearest = neighbours(real, fake)
    return {
        "density": Higher(_balls_around(fake, real, reach).mean() / k),
        "coverage": Higher((nearest <= reach).mean()),
    }


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


def _balls_around(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """In how many balls of squared radii ``reach`` around ``centres`` each point lies."""
    middle = centres.mean(0)
    count = functools.partial(_count, reach=jnp.asarray(reach))
    return _by_blocks(count, points - middle, centres - middle)


def _alike(fake: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
