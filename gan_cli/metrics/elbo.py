"""The evidence lower bound of held-out data."""

from __future__ import annotations

from gan_cli.metrics import HIGHER, Metric, RunTask
from gan_cli.metrics.text_inputs import no_texts
from gan_cli.types import PositiveInt


def elbo(*, importance_samples: PositiveInt = 200) -> Metric:
    """Evidence lower bound (ELBO) of held-out data in nats per example (Kingma and Welling 2014, eq. 2).

    The bound is the mean of log p(x|z) + log p(z) - log q(z|x) over samples z of the posterior q(z|x), averaged
    over the held-out examples. It is at most log p(x), and at most -nll for the same number of samples. The loss of
    a beta-VAE or of an IWAE is another bound.

    Args:
        importance_samples: number of samples of the posterior for each example. It changes the precision of the
            value, and not its expectation.

    Values:
    - elbo: the bound; higher is better.
    """

    def figures(run_task: RunTask) -> dict[str, float]:
        scores = run_task("score", "held_out", None, importance_samples=importance_samples)
        return {"elbo": float(scores["elbo"].mean(dtype="float64"))}

    return Metric(figures, {"elbo": HIGHER}, tasks=("score",), held_out_tasks=True, cannot=no_texts)
