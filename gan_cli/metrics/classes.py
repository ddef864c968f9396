"""Which classes a classifier finds among samples: the modes of labelled data."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, LOWER, NEITHER, Metric
from gan_cli.metrics.modes import jensen_shannon


def classes() -> Metric:
    """The classes that a classifier finds among the samples: the modes of labelled data.

    Returns:
        ``classes``, those with at least a quarter of the share that they have among the real data, and
        ``classes_total``; ``class_divergence``, the Jensen-Shannon divergence (nats) of the two sets' shares.
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
