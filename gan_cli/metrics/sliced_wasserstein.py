"""The sliced Wasserstein distance: how far apart two clouds lie, seen from many sides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt


def sliced_wasserstein(*, projections: PositiveInt = 500) -> Metric:
    """The root of the mean squared 2-Wasserstein distance of projections onto random directions (Bonneel et al.
    2015, eq. 12), of as many samples as real data.

    Two clouds that are a shift d apart in f dimensions have |d| / sqrt(f).
    """

    def figures(fake: np.ndarray, real: np.ndarray, seed: int) -> dict[str, float]:
        n = min(len(fake), len(real))
        directions = np.random.default_rng(seed).standard_normal((fake.shape[1], projections)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        return {"sliced_wasserstein": float(_distance(fake[:n], real[:n], directions))}

    return Metric(figures, {"sliced_wasserstein": LOWER}, minimum=1)


@jax.jit
def _distance(fake: jax.Array, real: jax.Array, directions: jax.Array) -> jax.Array:
    # One direction after the other: sorted projections of all at once would be as large as the features.
    def squared(direction: jax.Array) -> jax.Array:
        a, b = (jnp.sort(jnp.matmul(points, direction, precision="highest")) for points in (fake, real))
        return jnp.square(a - b).mean()

    return jnp.sqrt(jax.lax.map(squared, directions.T).mean())
