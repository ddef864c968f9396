"""Mean absolute error of translated images."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.metrics.paired import Pairs, by_task, compared


def l1() -> Metric:
    """Mean absolute error of translations of held-out images, compared with their true counterparts.

    The values of the images are scaled to [0, 1].

    Values:
    - l1: mean over all values of all images; lower is better.
    """

    def figures(pairs: Pairs) -> dict[str, float]:
        return by_task(pairs, lambda made, wanted: {"l1": float(error(made, wanted).mean())})

    return Metric(figures, {"l1": LOWER}, minimum=1)


def error(made: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The mean absolute error of each pair of images, ``[n]``.

    Args:
        made: images ``[n, h, w, c]``: integers, or floats in [-1, 1].
        wanted: their true counterparts, in the same format.

    Raises:
        ValueError: the shapes differ.
    """
    return compared(made, wanted, lambda x, y: np.abs(x - y).mean((1, 2, 3)))
