"""The number of latent dimensions that an encoder uses."""

from __future__ import annotations

from gan_cli.metrics import NEITHER, Metric, RunTask
from gan_cli.types import PositiveFloat, PositiveInt


def active_units(*, threshold: PositiveFloat = 0.01, examples: PositiveInt = 10_000) -> Metric:
    """Number of active latent units: dimensions of the code that depend on the example.

    A unit is active if the variance of its posterior mean over the training examples exceeds a threshold
    (Burda et al. 2016, section 5). A unit whose posterior equals the prior for all examples is inactive. If no unit
    is active, the posterior has collapsed.

    Args:
        threshold: smallest variance of an active unit.
        examples: number of training examples.

    Values:
    - active_units: the number of active units, between 0 and the number of latents.
    """

    def figures(run_task: RunTask) -> dict[str, float]:
        codes = run_task("encode", "training", examples)["codes"]
        return {"active_units": float((codes.var(0, dtype="float64") > threshold).sum())}

    return Metric(figures, {"active_units": NEITHER}, tasks=("encode",))
