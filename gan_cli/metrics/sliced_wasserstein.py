"""Sliced Wasserstein distance: the distance of two sets in random one-dimensional projections."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt


def sliced_wasserstein(*, projections: PositiveInt = 500) -> Metric:
    """Sliced Wasserstein distance between samples and real data (Bonneel et al. 2015, eq. 12).

    The root of the mean squared 2-Wasserstein distance of projections onto random directions. Both sets have the
    same size. The distance of two sets that differ by a shift d in f dimensions is about |d| / sqrt(f).

    Args:
        projections: number of random directions.

    Figures:
    - sliced_wasserstein: the distance; lower is better.
    """

    def figures(fake: np.ndarray, real: np.ndarray, seed: int) -> dict[str, float]:
        n = min(len(fake), len(real))
        directions = np.random.default_rng(seed).standard_normal((fake.shape[1], projections)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        return {"sliced_wasserstein": float(_distance(fake[:n], real[:n], directions))}

    return Metric(figures, {"sliced_wasserstein": LOWER}, minimum=1)


@jax.jit
def _distance(fake: jax.Array, real: jax.Array, directions: jax.Array) -> jax.Array:
    # One direction at a time, to save memory: all projections together can be as large as the features.
    def squared(direction: jax.Array) -> jax.Array:
        a, b = (jnp.sort(jnp.matmul(points, direction, precision="highest")) for points in (fake, real))
        return jnp.square(a - b).mean()

    return jnp.sqrt(jax.lax.map(squared, directions.T).mean())
