"""Class coverage: the classes of labelled data that appear among the samples."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, LOWER, NEITHER, Metric
from gan_cli.metrics.modes import jensen_shannon


def classes() -> Metric:
    """Class coverage: the number of classes of the data that are frequent enough among the samples.

    A classifier of the real data predicts the class of each sample.

    Values:
    - classes: number of classes whose share of the samples is at least a quarter of their share of the real data;
      higher is better.
    - classes_total: number of classes in the real data; neither higher nor lower is better.
    - class_divergence: Jensen-Shannon divergence (nats) between the class shares of the samples and of the real
      data; lower is better.
    """

    def figures(fake_classes: np.ndarray, real_classes: np.ndarray) -> dict[str, float]:
        total = int(max(fake_classes.max(), real_classes.max())) + 1
        shares = np.bincount(fake_classes, minlength=total) / len(fake_classes)
        expected = np.bincount(real_classes, minlength=total) / len(real_classes)
        return {
            "classes": float(((shares >= expected / 4) & (expected > 0)).sum()),
            "classes_total": float((expected > 0).sum()),
            "class_divergence": float(jensen_shannon(shares, expected)),
        }

    return Metric(figures, {"classes": HIGHER, "classes_total": NEITHER, "class_divergence": LOWER}, minimum=1)
