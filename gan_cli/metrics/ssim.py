"""Structural similarity (SSIM) of translated images and their true counterparts."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.paired import Pairs, by_task, compared
from gan_cli.types import Feature

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2  # for the data range 1


def ssim() -> Metric:
    """Structural similarity of translations and true images, for held-out pairs (Wang et al. 2004).

    The similarity of two images is the mean of eq. 13 over all windows of 7x7 pixels with equal weights that lie
    within the images, and over the channels. The values of the images are scaled to [0, 1], and variances are
    unbiased, as in scikit-image.

    Values:
    - ssim: mean over the images; higher is better.
    - ssim_p5: 5th percentile of the images; higher is better.
    """

    def of_task(made: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        found = similarity(made, wanted)
        return {"ssim": float(found.mean()), "ssim_p5": float(np.percentile(found, 5))}

    def figures(pairs: Pairs) -> dict[str, float]:
        return by_task(pairs, of_task)

    return Metric(figures, {"ssim": HIGHER, "ssim_p5": HIGHER}, minimum=1, cannot=_too_small)


def similarity(made: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The similarity of each pair of images, ``[n]``, at most 1.

    Args:
        made: images ``[n, h, w, c]``: integers, or floats in [-1, 1].
        wanted: their true counterparts, in the same format.

    Raises:
        ValueError: the images are smaller than 7x7 pixels, or the shapes differ.
    """
    if problem := _problem(*made.shape[1:3]):
        raise ValueError(f"needs {problem}")
    return compared(made, wanted, _similarity)


def _too_small(feature: Feature, features: int | None) -> str | None:
    problem = _problem(*feature.shape[:2])
    return problem and f"{problem}. Use larger images, or another metric, e.g. metric=psnr"


def _problem(height: int, width: int) -> str | None:
    if min(height, width) >= _WINDOW:
        return None
    return f"images of at least {_WINDOW}x{_WINDOW} pixels, but these have {height}x{width}"


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    mean_x, mean_y = _means(x), _means(y)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    variance_x = unbiased * (_means(x * x) - mean_x**2)
    variance_y = unbiased * (_means(y * y) - mean_y**2)
    covariance = unbiased * (_means(x * y) - mean_x * mean_y)
    found = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    found /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    means: np.ndarray = found.mean((1, 2, 3))
    return means


def _means(x: np.ndarray) -> np.ndarray:
    """The means of all windows within images ``[n, h, w, c]``."""
    for axis in (1, 2):
        total = np.insert(x.cumsum(axis), 0, 0, axis)
        length = total.shape[axis]
        x = np.take(total, range(_WINDOW, length), axis) - np.take(total, range(length - _WINDOW), axis)
    return x / _WINDOW**2
