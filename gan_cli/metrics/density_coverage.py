"""Density and coverage: improved measures of fidelity and diversity (Naeem et al. 2020)."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.neighbours import balls_around, equally_many, neighbours, radii
from gan_cli.types import PositiveInt


def density_coverage(*, k: PositiveInt = 5) -> Metric:
    """Density and coverage of the samples with respect to the real data (Naeem et al. 2020, eq. 3 and 4).

    The ball of a real example reaches to its k-th nearest real neighbour. Both figures are about 1 if samples and
    real data have the same distribution. Outliers among the real data have less influence than on precision and
    recall.

    Args:
        k: the radius of a ball is the distance from its centre to the k-th nearest neighbour in the same set.

    Figures:
    - density: mean number of real balls that contain a sample, divided by k; higher is better.
    - coverage: share of the real balls that contain at least one sample; higher is better.
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
