"""Whether samples lie where data lie, and data where samples do."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.neighbours import balls_around, equally_many, radii
from gan_cli.types import PositiveInt


def precision_recall(*, k: PositiveInt = 3) -> Metric:
    """The share of samples within the real data's manifold, and of real data within the samples'
    (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of balls around its members that reach to their k-th neighbours. Of as many
    samples as real data, as there: a larger set has smaller balls.
    """

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        fake, real = equally_many(fake, real)
        return {
            "precision": float((balls_around(fake, real, radii(real, k)) > 0).mean()),
            "recall": float((balls_around(real, fake, radii(fake, k)) > 0).mean()),
        }

    return Metric(figures, {"precision": HIGHER, "recall": HIGHER}, minimum=k + 1)
