"""The error of reconstructions of held-out data."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, Metric, RunTask


def reconstruction() -> Metric:
    """Mean squared error of the reconstructions of held-out examples.

    The error is averaged over all values of an example, on the scale of the networks, on which images lie in
    [-1, 1]. A reconstruction is the decoder's output for the mean of the posterior.

    Values:
    - reconstruction: the mean squared error; lower is better.
    """

    def figures(run_task: RunTask) -> dict[str, float]:
        found = run_task("reconstruct", "held_out", None)
        return {"reconstruction": float(np.square(found["x"] - found["samples"]).mean(dtype="float64"))}

    return Metric(figures, {"reconstruction": LOWER}, tasks=("reconstruct",), held_out_tasks=True)
