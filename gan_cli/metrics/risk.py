"""Measures of financial risk beside those of held-out data: value at risk, expected shortfall and drawdown."""

from __future__ import annotations

import functools

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Metric
from gan_cli.metrics import series_statistics as statistics
from gan_cli.metrics.series_inputs import at_least

_NAMES = ("var_1", "es_1", "var_5", "es_5", "drawdown")


def risk() -> Metric:
    """Value at risk and expected shortfall at 1 and 5 %, and the maximum drawdown, beside held-out data.

    All are losses in returns of one time step (for prices: log-returns), so a larger value is a larger risk. Each
    is computed for each column, over the returns of all windows together, and is the mean over the columns (McNeil,
    Frey and Embrechts 2015, sections 2.3.2 and 2.3.4). The same values of the held-out windows, or of the training
    windows if none are held out, have 95 % intervals by block bootstrap.

    Values, with the endings _real for held-out data, and _low and _high for the interval of _real; of all these,
    neither higher nor lower is better:
    - var_1, var_5: value at risk: the loss that 1 % or 5 % of the returns exceed.
    - es_1, es_5: expected shortfall: the mean of the losses of these returns.
    - drawdown: largest loss from a peak within a window, mean over the windows: a share of the peak for prices and
      log-returns, and in the unit of the data for other positive values. Values of both signs that are not known to
      be log-returns have no drawdown.

    Values with the ending _inside, and:
    - risk_inside: share of columns whose value lies inside the interval of the same held-out column, mean over the
      measures for risk_inside; higher is better. A held-out part of fewer than five blocks has no interval.
    - risk_samples, risk_held_out: number of generated and of held-out returns of a column, overlapping windows
      counted in full; neither higher nor lower is better.
    """

    def figures(
        fake_series: np.ndarray,
        real_series: np.ndarray,
        test_series: np.ndarray,
        seed: int,
        series_returns: bool = False,
    ) -> dict[str, float]:
        fake, test = (
            statistics.returns(windows, real_series, series_returns) for windows in (fake_series, test_series)
        )
        kinds = statistics.steps_of(real_series, series_returns)
        relative = np.array([kind == "log" or series_returns for kind in kinds])
        falls = series_returns or "none" not in kinds
        names = _NAMES if falls else _NAMES[:-1]
        measured = functools.partial(measures, relative=relative if falls else None)
        found = statistics.beside_held_out(measured, names, fake, test, seed)
        inside = [value for name, value in found.items() if name.endswith("_inside")]
        found |= {"risk_inside": float(np.mean(inside))} if inside else {}
        return found | {"risk_samples": float(fake[..., 0].size), "risk_held_out": float(test[..., 0].size)}

    counts = {"risk_samples": NEITHER, "risk_held_out": NEITHER}
    return Metric(
        figures, statistics.directions(_NAMES) | {"risk_inside": HIGHER} | counts, minimum=1, cannot=at_least(2)
    )


def measures(returns: np.ndarray, relative: np.ndarray | None) -> np.ndarray:
    """The measures of each column, ``[5, columns]``, in the order of the values of ``risk``.

    Args:
        returns: ``[n, length, columns]``.
        relative: see ``drawdown``. With None, the result has no drawdown, ``[4, columns]``.
    """
    pooled = np.sort(returns.reshape(-1, returns.shape[-1]), axis=0)
    found = []
    for share in (0.01, 0.05):
        # The same quantile as NumPy's, from sorted returns.
        place = share * (len(pooled) - 1)
        below = int(place)
        above = min(below + 1, len(pooled) - 1)
        found += [
            -(pooled[below] + (place - below) * (pooled[above] - pooled[below])),
            -pooled[: below + 1].mean(0),
        ]
    found += [] if relative is None else [drawdown(returns, relative).mean(0)]
    return np.stack(found)


def drawdown(returns: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """The maximum drawdown of each window and column, ``[n, columns]``.

    Args:
        returns: log-returns, or differences, ``[n, length, columns]``.
        relative: whether the returns of a column are log-returns, ``[columns]``. Their drawdown is a share of the
            peak, and that of differences has the unit of the data.
    """
    path = np.pad(returns.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    largest: np.ndarray = (np.maximum.accumulate(path, axis=1) - path).max(1)
    fall: np.ndarray = np.where(relative, 1 - np.exp(-np.where(relative, largest, 0)), largest)
    return fall
