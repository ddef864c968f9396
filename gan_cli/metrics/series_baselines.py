"""Baselines for tables of results: real windows, block bootstrap of returns, and GARCH(1,1).

All functions take training windows ``[n, length, columns]`` in the units of the data, in the order of time, and
make windows of the same kind, so that the same metrics judge them and the samples of a run.
"""

from __future__ import annotations

import numpy as np

from gan_cli.errors import UserError
from gan_cli.metrics.series_statistics import joined, returns, steps_of, stride_of

_BLOCK = 10  # mean length of a block of the bootstrap in time steps, two weeks of daily prices
_STRETCH = 3  # length of the stretches of ``real_halves`` in windows that do not overlap
_PERCENT = 100.0  # GARCH is fitted to returns in percent, because optimisers of its likelihood expect such sizes


def real_halves(windows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the windows in the order of time: real against real, the noise of a judge.

    Windows that overlap are divided by time: stretches of them belong to the halves in turn, and the windows
    between two stretches are left out, so that the halves share no time step. Other windows are divided at random.
    """
    rng = np.random.default_rng(seed)
    apart = -(-windows.shape[1] // stride_of(windows)) - 1  # the number of windows between two stretches
    if not apart:
        first = rng.permutation(len(windows)) < len(windows) // 2
        return windows[first], windows[~first]
    period = (1 + _STRETCH) * apart
    place = np.arange(len(windows)) + rng.integers(2 * period)
    kept, second = place % period >= apart, place // period % 2 == 1
    return windows[kept & ~second], windows[kept & second]


def block_bootstrap(windows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` windows of stretches of returns from random places: the stationary bootstrap (Politis and Romano 1994).

    The returns of all columns in one time step stay together. The lengths of the stretches are geometric with mean
    10. Levels start at the first values of random windows.
    """
    rng = np.random.default_rng(seed)
    known = returns(windows, windows)
    steps = known.shape[1]
    drawn = np.empty((n, *known.shape[1:]))
    row, place = rng.integers(len(known), size=n), rng.integers(steps, size=n)
    for t in range(steps):
        new = (rng.random(n) < 1 / _BLOCK) | (place == steps)
        row = np.where(new, rng.integers(len(known), size=n), row)
        place = np.where(new, rng.integers(steps, size=n), place)
        drawn[:, t] = known[row, place]
        place = place + 1
    return _levels(drawn, windows, rng)


def garch(windows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` windows of a GARCH(1,1) with constant mean for each column (Bollerslev 1986), fitted by likelihood.

    The columns share the dates of their residuals: the standardised residuals of one random day drive all columns,
    as in filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper 1999). Each window starts with the
    variances of a random day.

    Raises:
        UserError: the package ``arch`` is missing, or no series is long enough for the fit.
    """
    longest = max(joined(windows), key=len)
    series = returns(longest[None], windows)[0] * _PERCENT
    if len(series) < 100:
        raise UserError(
            f"GARCH(1,1) needs a series of at least 100 returns, but the longest has {len(series)}. Use training "
            "windows of a longer series."
        )
    fits = [_fitted(column) for column in series.T]
    parameters = np.array([[fit.params[name] for name in ("mu", "omega", "alpha[1]", "beta[1]")] for fit in fits])
    mean, omega, alpha, beta = parameters.T
    variances = np.stack([fit.conditional_volatility for fit in fits], axis=1) ** 2
    residuals = np.stack([fit.std_resid for fit in fits], axis=1)
    residuals = (residuals - residuals.mean(0)) / residuals.std(0)
    rng = np.random.default_rng(seed)
    variance = variances[rng.integers(len(variances), size=n)]
    drawn = np.empty((n, returns(windows[:1], windows).shape[1], series.shape[1]))
    for t in range(drawn.shape[1]):
        shock = np.sqrt(variance) * residuals[rng.integers(len(residuals), size=n)]
        drawn[:, t] = mean + shock
        variance = omega + alpha * shock**2 + beta * variance
    return _levels(drawn / _PERCENT, windows, rng)


def _fitted(column: np.ndarray):  # type: ignore[no-untyped-def]  # arch has no types that hold in all versions
    try:
        from arch import arch_model
    except ImportError as error:
        raise UserError(
            "the baseline GARCH(1,1) needs the package arch. Install it: pip install 'gan_cli[series]'."
        ) from error
    return arch_model(column, mean="Constant", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")


def _levels(drawn: np.ndarray, windows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Windows in the units of the data with the returns ``drawn``: the inverse of ``returns``."""
    kinds = steps_of(windows)
    if set(kinds) == {"none"}:
        return drawn
    start = windows[rng.integers(len(windows), size=len(drawn)), :1].astype(np.float64)
    found = np.concatenate([start, drawn], axis=1)
    for j, kind in enumerate(kinds):
        if kind == "log":
            found[..., j] = start[..., j] * np.exp(np.pad(drawn[..., j].cumsum(1), ((0, 0), (1, 0))))
        elif kind == "difference":
            found[..., j] = found[..., j].cumsum(1)
    return found
