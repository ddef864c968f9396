"""Dependence over time: autocorrelations of returns and of absolute returns, and the leverage effect."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import series_statistics as statistics
from gan_cli.metrics.series_inputs import at_least

_CLUSTERING = "volatility_clustering"


def autocorrelation() -> Metric:
    """Autocorrelations of returns and absolute returns, and the leverage effect corr(r_t, |r_{t+k}|^2).

    The lags k are 1 to 20, as far as a window has returns. Pairs lie within one window. The first three values
    compare samples with the training data (Wiese et al. 2020, section 6.1). The others tell whether the clusters of
    volatility are those of the held-out windows, or of the training windows if none are held out.

    Values:
    - acf_returns: mean absolute difference of the autocorrelations of returns, over lags and columns; lower is
      better.
    - acf_absolute: the same for absolute returns; lower is better.
    - leverage: the same for the leverage effect; lower is better.
    - volatility_clustering: autocorrelation of absolute returns, mean over lags and columns; neither higher nor
      lower is better.
    - volatility_clustering_real, volatility_clustering_low, volatility_clustering_high: the same of the held-out
      windows, and its 95 % interval by block bootstrap; neither higher nor lower is better. A held-out part of
      fewer than five blocks has no interval.
    - volatility_clustering_inside: share of columns whose mean over the lags lies inside the interval of the same
      held-out column; higher is better.
    - acf_samples: number of generated windows; neither higher nor lower is better.
    """

    def figures(
        fake_series: np.ndarray,
        real_series: np.ndarray,
        test_series: np.ndarray,
        seed: int,
        series_returns: bool = False,
    ) -> dict[str, float]:
        fake, real, test = (
            statistics.returns(windows, real_series, series_returns)
            for windows in (fake_series, real_series, test_series)
        )
        lags = statistics.lags_of(fake.shape[1])
        compared = {"acf_returns": statistics.autocorrelations, "acf_absolute": _absolute}
        compared["leverage"] = statistics.leverage
        found = {name: float(np.abs(one(fake, lags) - one(real, lags)).mean()) for name, one in compared.items()}
        found |= statistics.beside_held_out(
            lambda windows: _absolute(windows, lags).mean(0, keepdims=True), [_CLUSTERING], fake, test, seed
        )
        return found | {"acf_samples": float(len(fake))}

    lower = dict.fromkeys(("acf_returns", "acf_absolute", "leverage"), LOWER)
    return Metric(
        figures,
        lower | statistics.directions([_CLUSTERING]) | {"acf_samples": NEITHER},
        minimum=1,
        cannot=at_least(3),
    )


def _absolute(returns: np.ndarray, lags: int) -> np.ndarray:
    return statistics.autocorrelations(np.abs(returns), lags)
