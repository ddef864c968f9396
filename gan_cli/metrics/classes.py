"""Which classes a classifier finds among samples: the modes of labelled data."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import Higher, Lower
from gan_cli.metrics.modes import jensen_shannon


def classes(fake_classes: np.ndarray, real_classes: np.ndarray) -> dict[str, float]:
    """The classes that a classifier finds among the samples: the modes of labelled data.

    Returns:
        ``classes``, those with at least a quarter of the share that they have among the real data, and
        ``classes_total``; ``class_divergence``, the Jensen-Shannon divergence (nats) of the two sets' shares.
    """
    total = int(max(fake_classes.max(), real_classes.max())) + 1
    shares, expected = (np.bincount(found, minlength=total) / len(found) for found in (fake_classes, real_classes))
    return {
        "classes": Higher(((shares >= expected / 4) & (expected > 0)).sum()),
        "classes_total": float((expected > 0).sum()),
        "class_divergence": Lower(jensen_shannon(shares, expected)),
    }
