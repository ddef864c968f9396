"""The negative log-likelihood of held-out data, by importance sampling."""

from __future__ import annotations

from gan_cli.metrics import LOWER, Metric, RunTask
from gan_cli.metrics.text_inputs import no_texts
from gan_cli.types import PositiveInt


def nll(*, importance_samples: PositiveInt = 200) -> Metric:
    """Negative log-likelihood of held-out data in nats, by importance sampling (Burda et al. 2016).

    The estimate is -log of the mean of p(x|z) p(z) / q(z|x) over samples z of the posterior q(z|x), averaged over
    the held-out examples. In expectation it is at least -log p(x), and it decreases with the number of samples.
    Values are comparable only for the same data, with the same binarisation or dequantisation, and the same number
    of samples.

    Args:
        importance_samples: number of importance samples for each example. Published values use 200 to 5,000.

    Values:
    - nll: the negative log-likelihood; lower is better.
    """

    def figures(run_task: RunTask) -> dict[str, float]:
        scores = run_task("score", "held_out", None, importance_samples=importance_samples)
        return {"nll": float(scores["nll"].mean(dtype="float64"))}

    return Metric(figures, {"nll": LOWER}, tasks=("score",), held_out_tasks=True, cannot=no_texts)
