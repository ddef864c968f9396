"""The distribution of returns: moments, quantiles and the Wasserstein distance."""

from __future__ import annotations

import numpy as np
from scipy.stats import kurtosis, skew

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import series_statistics as statistics
from gan_cli.metrics.series_inputs import at_least

_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def returns() -> Metric:
    """Distribution of returns: moments, quantiles and Wasserstein distance to the training data.

    Each value is computed for each column, over the returns of one time step of all windows together, and is the
    mean over the columns. Prices have log-returns. gan_cli/metrics/README.md says which columns are prices.

    Values:
    - returns_mean: absolute difference of the means, in standard deviations of the real returns; lower is better.
    - returns_sd: absolute difference of the standard deviations, as a share of the real one; lower is better.
    - returns_skew: absolute difference of the skewness; lower is better.
    - returns_kurtosis: absolute difference of the excess kurtosis; lower is better.
    - returns_quantiles: mean absolute difference of the quantiles at 1, 5, 25, 50, 75, 95 and 99 %, in standard
      deviations of the real returns; lower is better.
    - returns_wasserstein: Wasserstein-1 distance of the two distributions, in standard deviations of the real
      returns; lower is better.
    - returns_samples: number of generated returns of a column; neither higher nor lower is better.
    """

    def figures(fake_series: np.ndarray, real_series: np.ndarray, series_returns: bool = False) -> dict[str, float]:
        fake, real = (
            statistics.returns(windows, real_series, series_returns) for windows in (fake_series, real_series)
        )
        found = by_column(fake, real)
        means = {f"returns_{name}": float(values.mean()) for name, values in found.items()}
        return means | {"returns_samples": float(fake[..., 0].size)}

    names = ("mean", "sd", "skew", "kurtosis", "quantiles", "wasserstein")
    return Metric(
        figures,
        {f"returns_{name}": LOWER for name in names} | {"returns_samples": NEITHER},
        minimum=1,
        cannot=at_least(2),
    )


def by_column(fake: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    """The values of the metric for each column, without their prefix: arrays ``[columns]``.

    Args:
        fake: generated returns ``[n, length, columns]``.
        real: real returns ``[m, length, columns]``.
    """
    fake, real = (x.reshape(-1, x.shape[-1]) for x in (fake, real))
    sd = real.std(0)
    unit = np.where(sd > 0, sd, 1)
    quantiles = np.quantile(fake, _LEVELS, axis=0) - np.quantile(real, _LEVELS, axis=0)
    return {
        "mean": np.abs(fake.mean(0) - real.mean(0)) / unit,
        "sd": np.abs(fake.std(0) - sd) / unit,
        "skew": np.abs(_moment(skew, fake) - _moment(skew, real)),
        "kurtosis": np.abs(_moment(kurtosis, fake) - _moment(kurtosis, real)),
        "quantiles": np.abs(quantiles).mean(0) / unit,
        "wasserstein": np.array([_wasserstein(a, b) for a, b in zip(fake.T, real.T, strict=True)]) / unit,
    }


def _moment(moment: object, x: np.ndarray) -> np.ndarray:
    """The standardised moment of each column of ``[n, columns]``, 0 for constant columns."""
    varies = x.std(0) > 0
    found = np.zeros(x.shape[1])
    found[varies] = moment(x[:, varies], axis=0)  # type: ignore[operator]  # SciPy has no types
    return found


def _wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The Wasserstein-1 distance of two samples: the area between their empirical quantile functions."""
    a, b = np.sort(a), np.sort(b)
    levels = np.unique(np.concatenate([np.arange(1, len(a) + 1) / len(a), np.arange(1, len(b) + 1) / len(b)]))
    middle = levels - np.diff(levels, prepend=0) / 2
    gaps = a[(middle * len(a)).astype(int)] - b[(middle * len(b)).astype(int)]
    return float((np.abs(gaps) * np.diff(levels, prepend=0)).sum())
