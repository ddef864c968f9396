"""The kernel distance of features: unbiased, so that few samples do."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt


def kid(*, subsets: PositiveInt = 100, subset_size: PositiveInt = 1000) -> Metric:
    """The squared maximum mean discrepancy under the kernel (x.y / f + 1)^3 (Binkowski et al. 2018, section 4).

    The mean over random subsets, as is usual, with a 95 % confidence interval (subsampling, Politis and Romano
    1994): a figure of m samples has a variance of about s / m, and those of subsets of the same n samples scatter
    by s (1/m - 1/n), since they share members. Near zero, where the variance falls faster, the interval is too wide
    rather than too narrow.

    Args:
        subset_size: at most half of the smaller set, since equal subsets would scatter not at all.
    """

    def figures(fake: np.ndarray, real: np.ndarray, seed: int) -> dict[str, float]:
        smaller = min(len(fake), len(real))
        size = max(min(subset_size, smaller // 2), 2)
        rng = np.random.default_rng(seed)
        rows = [[rng.choice(len(x), size, replace=False) for x in (fake, real)] for _ in range(subsets)]
        found = of_subsets(fake, real, np.array(rows))
        mean, deviation = found.mean(), found.std(ddof=min(1, subsets - 1))
        half = 1.96 * deviation * math.sqrt(size / max(smaller - size, 1))
        return {"kid": float(mean), "kid_low": float(mean - half), "kid_high": float(mean + half)}

    return Metric(figures, {"kid": LOWER, "kid_low": LOWER, "kid_high": LOWER})


def of_subsets(fake: np.ndarray, real: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The figure of each subset ``[subsets]``, of the rows ``[subsets, 2, m]`` of samples and of real data."""
    found = [_discrepancy(fake[of_fake], real[of_real]) for of_fake, of_real in rows]
    return np.array(jax.device_get(found), np.float64)


@jax.jit
def _discrepancy(x: jax.Array, y: jax.Array) -> jax.Array:
    """Gretton et al. 2012, eq. 3, of as many samples of each."""
    m = len(x)

    def apart(a: jax.Array) -> jax.Array:
        kernel = _kernel(a, a)
        return (kernel.sum() - jnp.trace(kernel)) / (m * (m - 1))

    return apart(x) + apart(y) - 2 * _kernel(x, y).mean()


def _kernel(a: jax.Array, b: jax.Array) -> jax.Array:
    return (jnp.matmul(a, b.T, precision="highest") / a.shape[1] + 1) ** 3
