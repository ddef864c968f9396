"""Density and coverage: alternatives to precision and recall (Naeem et al. 2020)."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.neighbours import balls_around, equally_many, neighbours, radii
from gan_cli.types import PositiveInt


def density_coverage(*, k: PositiveInt = 5) -> Metric:
    """Density and coverage of the samples with respect to the real data (Naeem et al. 2020, eq. 3 and 4).

    Each real example is the centre of a ball, which reaches to the k-th nearest real neighbour of the example.
    Density and coverage are about 1 if samples and real data have the same distribution. Outliers in the real data
    affect density and coverage less than they affect precision and recall.

    Args:
        k: rank of the neighbour that determines the radius of each ball. The radius is the distance from the centre
            of the ball to the k-th nearest other point of the set that contains the centre.

    Values:
    - density: number of balls that contain a sample, averaged over the samples and divided by k; higher is better.
    - coverage: share of the balls that contain at least one sample; higher is better.
    """

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        fake, real = equally_many(fake, real)
        reach = radii(real, k)
        _, nearest = neighbours(real, fake)
        return {
            "density": float(balls_around(fake, real, reach).mean() / k),
            "coverage": float((nearest <= reach).mean()),
        }

    return Metric(figures, {"density": HIGHER, "coverage": HIGHER}, minimum=k + 1)
