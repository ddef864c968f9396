"""Sliced Wasserstein distance: the distance between two sets in random one-dimensional projections."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt


def sliced_wasserstein(*, projections: PositiveInt = 500) -> Metric:
    """Sliced Wasserstein distance between samples and real data (Bonneel et al. 2015, eq. 12).

    The samples and the real data are projected onto random directions. The sliced distance is the root mean square,
    over these directions, of the 2-Wasserstein distances between the projected sets. The metric uses equal numbers
    of samples and real examples. If the samples are the real data shifted by a vector d in f dimensions, the sliced
    distance is about |d| / sqrt(f).

    Args:
        projections: number of random directions.

    Values:
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
    # Directions are processed one at a time, because all projections together can need as much memory as the
    # features.
    def squared(direction: jax.Array) -> jax.Array:
        a, b = (jnp.sort(jnp.matmul(points, direction, precision="highest")) for points in (fake, real))
        return jnp.square(a - b).mean()

    return jnp.sqrt(jax.lax.map(squared, directions.T).mean())
