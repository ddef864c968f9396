"""A test for copied windows: distances from samples to the nearest training and the nearest held-out window."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import series_statistics as statistics
from gan_cli.metrics.neighbours import neighbours
from gan_cli.metrics.series_inputs import at_least

_MOST = 10_000  # largest number of samples
_BLOCK = 500  # samples whose distances are in memory at a time


def window_ratio() -> Metric:
    """Copies of training windows: ratio of the distances to the nearest training and held-out window.

    The distance is that of the returns, each column divided by the standard deviation of the training returns. It
    is measured to as many training windows as there are held-out windows: the training windows are divided into
    stretches of that length in the order of time, and the ratio is the mean over the stretches. Needs held-out
    windows. gan_cli/metrics/README.md says when the ratio misleads.

    Values:
    - window_ratio: mean distance to the nearest training window divided by that to the nearest held-out window;
      neither higher nor lower is better. It is 1 without copying, and below 0.9 with copying.
    - window_copies: share of samples that lie far nearer to one training window than to all that do not overlap it,
      as only 1 % of the held-out windows do; lower is better. It is about 0.01 without copying, and 1 for copies.
    - window_samples, window_held_out: number of samples and of held-out windows; neither higher nor lower is
      better.
    """

    def figures(
        fake_series: np.ndarray, real_series: np.ndarray, held_out_series: np.ndarray, series_returns: bool = False
    ) -> dict[str, float]:
        fake, real, held_out = (
            statistics.returns(windows, real_series, series_returns)
            for windows in (fake_series[:_MOST], real_series, held_out_series)
        )
        counts = {"window_samples": float(len(fake)), "window_held_out": float(len(held_out))}
        scale = real.std((0, 1))
        unit = np.where(scale > 0, scale, 1)
        overlap = -(-real.shape[1] // statistics.stride_of(real)) - 1  # windows before a window that overlap it
        points, windows, others = ((x / unit).reshape(len(x), -1) for x in (fake, real, held_out))
        return _ratios(points, windows, others, overlap) | counts

    named = ("window_ratio", "window_samples", "window_held_out")
    return Metric(figures, dict.fromkeys(named, NEITHER) | {"window_copies": LOWER}, minimum=1, cannot=at_least(2))


def _ratios(fake: np.ndarray, real: np.ndarray, held_out: np.ndarray, overlap: int) -> dict[str, float]:
    n = min(len(real), len(held_out))
    starts = np.linspace(0, len(real) - n, -(-len(real) // n)).astype(int)
    to_stretches = np.mean([_distances(fake, real[start : start + n]).mean() for start in starts])
    to_held_out = max(float(_distances(fake, held_out[:n]).mean()), 1e-12)
    usual = np.quantile(_contrasts(held_out, real, overlap), 0.01)
    return {
        "window_ratio": float(to_stretches) / to_held_out,
        "window_copies": float((_contrasts(fake, real, overlap) < usual).mean()),
    }


def _contrasts(points: np.ndarray, real: np.ndarray, overlap: int) -> np.ndarray:
    """The distance to the nearest window divided by that to the nearest one that does not overlap it, ``[n]``.

    Points and windows are scaled to the length 1, because samples with too small a variance would otherwise lie
    near the calmest training windows, without being copies of them.
    """
    points, real = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (points, real))
    found = []
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        squared = np.maximum((block**2).sum(1)[:, None] + (real**2).sum(1) - 2 * block @ real.T, 0)
        nearest = squared.argmin(1)
        first = squared.min(1)
        near = np.clip(nearest[:, None] + np.arange(-overlap, overlap + 1), 0, len(real) - 1)
        np.put_along_axis(squared, near, np.inf, axis=1)
        found.append(np.sqrt(first / np.maximum(squared.min(1), 1e-24)))
    return np.concatenate(found)


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The Euclidean distance from each point to its nearest neighbour among ``others``."""
    nearest: np.ndarray = np.sqrt(
        np.maximum(neighbours(points.astype(np.float32), others.astype(np.float32))[1], 0)
    )
    return nearest
