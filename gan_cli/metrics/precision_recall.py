"""Precision and recall of samples with respect to the real data (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.neighbours import balls_around, equally_many, radii
from gan_cli.types import PositiveInt


def precision_recall(*, k: PositiveInt = 3) -> Metric:
    """Improved precision and recall of the samples (Kynkaanniemi et al. 2019, eq. 1 and 2).

    The manifold of a set is the union of balls around all points of the set. Each ball reaches to the k-th nearest
    neighbour of the ball's centre in the set. As in the paper, the metric uses equal numbers of samples and real
    examples, because the balls of a larger set are smaller.

    Args:
        k: rank of the neighbour that determines the radius of each ball. The radius is the distance from the centre
            of the ball to the k-th nearest other point of the set that contains the centre.

    Values:
    - precision: share of the samples in the manifold of the real data; higher is better.
    - recall: share of the real data in the manifold of the samples; higher is better.
    """

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        fake, real = equally_many(fake, real)
        return {
            "precision": float((balls_around(fake, real, radii(real, k)) > 0).mean()),
            "recall": float((balls_around(real, fake, radii(fake, k)) > 0).mean()),
        }

    return Metric(figures, {"precision": HIGHER, "recall": HIGHER}, minimum=k + 1)
