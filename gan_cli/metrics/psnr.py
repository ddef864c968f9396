"""Peak signal-to-noise ratio (PSNR) of translated images and their true counterparts."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.paired import Pairs, by_task, compared

_MOST = 100.0  # dB, of images without any error, whose ratio is infinite


def psnr() -> Metric:
    """Peak signal-to-noise ratio of translations of held-out images, in decibels.

    The ratio of an image is 10 log10(1 / MSE), where MSE is the mean squared error of its values on the scale from
    0 to 1. An image without any error counts as 100 dB.

    Values:
    - psnr: mean over the images; higher is better.
    """

    def figures(pairs: Pairs) -> dict[str, float]:
        return by_task(pairs, lambda made, wanted: {"psnr": float(ratio(made, wanted).mean())})

    return Metric(figures, {"psnr": HIGHER}, minimum=1)


def ratio(made: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The ratio of each pair of images in decibels, ``[n]``.

    Args:
        made: images ``[n, h, w, c]``: integers, or floats in [-1, 1].
        wanted: their true counterparts, in the same format.

    Raises:
        ValueError: the shapes differ.
    """
    errors = compared(made, wanted, lambda x, y: ((x - y) ** 2).mean((1, 2, 3)))
    exact = errors == 0
    return np.where(exact, _MOST, -10 * np.log10(np.where(exact, 1, errors)))
