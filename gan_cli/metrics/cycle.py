"""The error of images that are translated to the other domain and back."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, Metric, RunTask
from gan_cli.metrics.l1 import error


def cycle() -> Metric:
    """Cycle error: difference of held-out images and their translations to the other domain and back.

    The error is the mean absolute difference on the scale from 0 to 1, from a to b to a and from b to a to b
    (Zhu et al. 2017, eq. 2).

    Values:
    - cycle_l1: mean over both directions; lower is better.
    """

    def figures(run_task: RunTask) -> dict[str, float]:
        found = [run_task(f"cycle_{name}", "held_out", None) for name in ("a", "b")]
        errors = [error(one["cycle"], one[name]).mean() for name, one in zip("ab", found, strict=True)]
        return {"cycle_l1": float(np.mean(errors))}

    return Metric(figures, {"cycle_l1": LOWER}, minimum=1, tasks=("cycle_a", "cycle_b"), held_out_tasks=True)
