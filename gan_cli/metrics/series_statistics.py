"""Statistics of series that several metrics share: returns, autocorrelations, overlaps and bootstrap intervals.

All functions take windows ``[n, length, columns]`` in the units of the data. Pairs of time steps never cross the
border of a window, and real and generated windows go through the same estimators.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Direction

log = logging.getLogger(__name__)
Steps = Literal["log", "difference", "none"]  # how returns follow from values
_REPEATS = 500  # number of bootstrap samples
_MOST = 1000  # largest number of windows of which bootstrap samples are drawn
_SHORTEST = 20  # smallest length of a block in time steps, about a month of daily prices
_LAGS = 20
_BLOCKS = 5  # smallest number of blocks in the held-out windows from which an interval is computed


def steps_of(real: np.ndarray, are_returns: bool = False) -> tuple[Steps, ...]:
    """For each column, how its returns follow from its values.

    Columns of positive values whose logarithm never moves by more than ``log(10)`` in one time step are prices, so
    their returns are log-returns (``log``). Other columns of positive values have differences (``difference``).
    Columns with values of both signs are returns already, or oscillate, and are left as they are (``none``).

    Args:
        real: windows of the training data, ``[n, length, columns]``.
        are_returns: whether all values are known to be returns. Otherwise, their signs and moves decide.
    """

    def kind(column: np.ndarray) -> Steps:
        if are_returns or column.min() < 0:
            return "none"
        priced = column.min() > 0 and np.abs(np.diff(np.log(column), axis=1)).max(initial=0) <= np.log(10)
        return "log" if priced else "difference"

    return tuple(kind(np.asarray(column, np.float64)) for column in np.moveaxis(real, 2, 0))


def returns(windows: np.ndarray, real: np.ndarray, are_returns: bool = False) -> np.ndarray:
    """The returns of windows: float64 ``[n, length - 1, columns]``, or all of ``[n, length, columns]``.

    If all columns are returns already, no time step is lost.

    Args:
        windows: ``[n, length, columns]``, where ``length`` is at least 2.
        real: windows of the training data, which decide how returns follow from values (see ``steps_of``). Values
            of ``windows`` that are not positive have no logarithm, and are replaced by the smallest value of a
            column of prices in ``real``.
        are_returns: whether all values are known to be returns.
    """
    windows, kinds = np.asarray(windows, np.float64), steps_of(real, are_returns)
    if set(kinds) == {"none"}:
        return windows
    found = np.empty((len(windows), windows.shape[1] - 1, windows.shape[2]))
    for j, kind in enumerate(kinds):
        column = windows[..., j]
        if kind == "log":
            found[..., j] = np.diff(np.log(np.where(column > 0, column, real[..., j].min())), axis=1)
        else:
            found[..., j] = np.diff(column, axis=1) if kind == "difference" else column[:, 1:]
    return found


def lags_of(length: int) -> int:
    """The number of lags that windows of ``length`` returns allow: at most 20, and at least one."""
    return max(min(_LAGS, length - 1), 1)


def autocorrelations(x: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelations at the lags 1 to ``lags``, ``[lags, columns]``.

    Mean and variance are those of all windows together. Means of single windows would bias the estimate downwards.

    Args:
        x: ``[n, length, columns]``.
        lags: largest lag, smaller than ``length``.
    """
    return lagged_correlations(x, x, lags)


def leverage(r: np.ndarray, lags: int) -> np.ndarray:
    """The leverage effect ``corr(r_t, |r_{t+k}|^2)`` at the lags k from 1 to ``lags``, ``[lags, columns]``.

    It is negative where losses are followed by large returns of either sign (Bouchaud et al. 2001, who divide the
    same covariance by another constant).

    Args:
        r: returns ``[n, length, columns]``.
        lags: largest lag, smaller than ``length``.
    """
    return lagged_correlations(r, r**2, lags)


def lagged_correlations(x: np.ndarray, y: np.ndarray, lags: int) -> np.ndarray:
    """``corr(x_t, y_{t+k})`` at the lags k from 1 to ``lags``, ``[lags, columns]``. 0 for constant columns."""
    x, y = x - x.mean((0, 1)), y - y.mean((0, 1))
    found = []
    for k in range(1, lags + 1):
        early, late = x[:, : x.shape[1] - k], y[:, k:]
        # The variances of these pairs keep the result in [-1, 1] where the variance differs between time steps.
        scale = np.sqrt((early**2).mean((0, 1)) * (late**2).mean((0, 1)))
        found.append(np.where(scale > 0, (early * late).mean((0, 1)) / np.where(scale > 0, scale, 1), 0.0))
    return np.array(found)


def stride_of(windows: np.ndarray) -> int:
    """The number of time steps between the starts of successive windows, at most ``length``.

    Windows that do not overlap, or whose order is not that of time, have the stride ``length``.

    Args:
        windows: ``[n, length, columns]``.
    """
    length, first = int(windows.shape[1]), windows[:50]
    for stride in range(1, length):
        # A few of many pairs may differ, because windows of several series follow each other.
        same = _follows(first, stride)
        if len(same) and same.mean() > 0.4:
            return stride
    return length


def _follows(windows: np.ndarray, stride: int) -> np.ndarray:
    """Whether each window but the first starts ``stride`` time steps after its predecessor, bool ``[n - 1]``.

    Equal values may differ by rounding, because windows are stored in another unit than they are compared.
    """
    apart = np.abs(windows[:-1, stride:] - windows[1:, : windows.shape[1] - stride])
    follows: np.ndarray = (apart <= 1e-4 * windows.std((0, 1))).all((1, 2))
    return follows


def in_time_order(windows: np.ndarray) -> np.ndarray:
    """The same windows, in which those that overlap follow each other in the order of time.

    TimeGAN's protocol shuffles the windows of a series. Windows overlap if the first two time steps of one are time
    steps of the other. Windows in the order of time, and windows that do not overlap, keep their order.

    Args:
        windows: ``[n, length, columns]``.
    """
    n, length = windows.shape[:2]
    if length < 3 or stride_of(windows) < length:
        return windows
    pairs = np.ascontiguousarray(np.concatenate([windows[:, :-1], windows[:, 1:]], axis=2))
    starts = {pair[0].tobytes(): i for i, pair in enumerate(pairs)}
    # The window that starts soonest after each window. Every window has at most one predecessor.
    following = np.full(n, -1)
    for i, pair in enumerate(pairs):
        following[i] = next((j for one in pair[1:] if (j := starts.get(one.tobytes(), -1)) >= 0 and j != i), -1)
    order, seen = list[int](), np.zeros(n, bool)
    for first in [*np.setdiff1d(np.arange(n), following), *range(n)]:
        i = int(first)
        while i >= 0 and not seen[i]:
            seen[i] = True
            order.append(i)
            i = int(following[i])
    return windows[order]


def joined(windows: np.ndarray) -> list[np.ndarray]:
    """The series ``[time, columns]`` from which windows were cut, without the ends that no window reaches.

    Windows that overlap their predecessor are joined with it. Every other window starts another series.

    Args:
        windows: ``[n, length, columns]`` in the order of time.
    """
    stride, length = stride_of(windows), windows.shape[1]
    if stride == length:
        return list(windows)
    parts = np.split(windows, np.flatnonzero(~_follows(windows, stride)) + 1)
    return [np.concatenate([part[0], *part[1:, length - stride :]]) for part in parts]


def block_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], windows: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of statistics of windows by the circular block bootstrap: ``(low, high)``.

    Politis and Romano 1992. Blocks of successive windows are drawn with replacement, 500 times. The first windows
    follow the last, so that all windows are drawn equally often. A block covers at least the length of a window,
    and at least 20 time steps, so that overlapping windows, and clusters of volatile days, stay together. Of
    more than 1,000 windows, every second, third, ... is used, which makes the interval wider, not narrower.

    Args:
        statistic: function of windows ``[n, length, columns]``, with a value for each column or one value.
        windows: ``[n, length, columns]`` in the order of time.
        seed: seed of the choice of blocks.
    """
    windows = _thinned(windows)
    n, block = len(windows), block_of(windows)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n, (_REPEATS, -(-n // block)))
    rows = (starts[..., None] + np.arange(block)).reshape(_REPEATS, -1)[:, :n] % n
    found = np.array([statistic(windows[chosen]) for chosen in rows])
    return np.quantile(found, 0.025, axis=0), np.quantile(found, 0.975, axis=0)


def block_of(windows: np.ndarray) -> int:
    """The number of windows in a block of ``block_bootstrap``."""
    return -(-max(int(windows.shape[1]), _SHORTEST) // stride_of(windows))


def _thinned(windows: np.ndarray) -> np.ndarray:
    return windows[:: -(-len(windows) // _MOST)]


def beside_held_out(
    statistic: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    fake: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Statistics of generated windows beside the same statistics of held-out windows, with their intervals.

    Args:
        statistic: function of windows ``[n, length, columns]`` that returns ``[statistics, columns]``.
        names: names of the statistics.
        fake: generated windows.
        test: held-out windows in the order of time.
        seed: seed of the bootstrap.

    Returns:
        For each name: the mean over the columns (no ending), that of the held-out windows (``_real``), the ends of
        its 95 % interval (``_low``, ``_high``), and the share of columns whose value lies inside the interval
        of the same held-out column (``_inside``). The last three are left out, with a warning, if the held-out
        windows are shorter than five blocks of the bootstrap.
    """

    def with_mean(windows: np.ndarray) -> np.ndarray:
        values = statistic(windows)
        return np.concatenate([values, values.mean(1, keepdims=True)], axis=1)

    ends = {"": with_mean(fake), "_real": with_mean(test)}
    kept = _thinned(test)
    if len(kept) < _BLOCKS * (block := block_of(kept)):
        log.warning(
            "%s: has no interval, because %d held-out windows are fewer than %d blocks of %d windows. Increase "
            "dataset.hold_out.",
            ", ".join(names), len(kept), _BLOCKS, block,
        )  # fmt: skip
        return {
            f"{name}{end}": float(values[i, -1]) for i, name in enumerate(names) for end, values in ends.items()
        }
    low, high = block_bootstrap(with_mean, test, seed)
    inside = ((low <= ends[""]) & (ends[""] <= high))[:, :-1].mean(1)
    found = dict[str, float]()
    for i, name in enumerate(names):
        values_of = ends | {"_low": low, "_high": high}
        found |= {f"{name}{end}": float(values[i, -1]) for end, values in values_of.items()}
        found[f"{name}_inside"] = float(inside[i])
    return found


def directions(names: Sequence[str]) -> dict[str, Direction]:
    """The directions of the values that ``beside_held_out`` returns."""
    stated = {f"{name}{ending}": NEITHER for name in names for ending in ("", "_real", "_low", "_high")}
    return stated | {f"{name}_inside": HIGHER for name in names}
