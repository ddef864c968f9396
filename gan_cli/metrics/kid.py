"""The kernel Inception distance (KID), whose estimate is unbiased even for small numbers of samples."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt


def kid(*, subsets: PositiveInt = 100, subset_size: PositiveInt = 1000) -> Metric:
    """Kernel distance: squared MMD with kernel (x.y / f + 1)^3 (KID, Binkowski et al. 2018, section 4).

    f is the number of features. ``kid`` is the mean of the distance over random subsets of the samples and the real
    examples. The 95 % confidence interval is computed by subsampling (Politis and Romano 1994). The variance of an
    estimate from m samples is about s / m, with a constant s. Subsets of m out of n samples overlap, so their
    estimates have the smaller variance s (1/m - 1/n). The metric computes s from this variance, and the interval
    from the variance s / n of an estimate from all samples. If the squared distance is near zero, the variance
    decreases faster with m, so that the interval is too wide rather than too narrow.

    Args:
        subsets: number of random subsets.
        subset_size: number of samples and number of real examples in each subset. The number is limited to half the
            number of samples or half the number of real examples, whichever is smaller, because estimates from
            larger subsets differ too little to estimate a variance.

    Values:
    - kid: the squared distance; lower is better.
    - kid_low: lower end of the confidence interval; lower is better.
    - kid_high: upper end of the confidence interval; lower is better.
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
    """An array ``[subsets]`` with the squared distance of each subset.

    Args:
        fake: features ``[n, f]`` of the samples.
        real: features ``[n', f]`` of the real data.
        rows: ``[subsets, 2, m]``, the row indices of each subset in ``fake`` and in ``real``.
    """
    found = [_discrepancy(fake[of_fake], real[of_real]) for of_fake, of_real in rows]
    return np.array(jax.device_get(found), np.float64)


@jax.jit
def _discrepancy(x: jax.Array, y: jax.Array) -> jax.Array:
    """The unbiased estimate of the squared MMD for equally large sets (Gretton et al. 2012, eq. 3)."""
    m = len(x)

    def apart(a: jax.Array) -> jax.Array:
        kernel = _kernel(a, a)
        return (kernel.sum() - jnp.trace(kernel)) / (m * (m - 1))

    return apart(x) + apart(y) - 2 * _kernel(x, y).mean()


def _kernel(a: jax.Array, b: jax.Array) -> jax.Array:
    return (jnp.matmul(a, b.T, precision="highest") / a.shape[1] + 1) ** 3
