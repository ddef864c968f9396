"""How densely samples lie among data, and how much of the data they cover."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.neighbours import balls_around, equally_many, neighbours, radii
from gan_cli.types import PositiveInt


def density_coverage(*, k: PositiveInt = 5) -> Metric:
    """How many real balls hold a sample, over k; and the share of real balls that hold one (Naeem et al. 2020,
    eq. 3 and 4). Both are about 1 where the two sets are alike; outliers among the real data weigh less than in
    precision and recall."""

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        fake, real = equally_many(fake, real)
        reach = radii(real, k)
        _, nearest = neighbours(real, fake)
        return {
            "density": float(balls_around(fake, real, reach).mean() / k),
            "coverage": float((nearest <= reach).mean()),
        }

    return Metric(figures, {"density": HIGHER, "coverage": HIGHER}, minimum=k + 1)
