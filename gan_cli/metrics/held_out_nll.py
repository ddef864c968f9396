"""The negative log-likelihood of held-out texts under the generator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gan_cli.metrics import LOWER, Metric, RunTask
from gan_cli.metrics.ngrams import Texts


def held_out_nll() -> Metric:
    """Negative log-likelihood of held-out texts under the generator, in nats per token.

    Each token is predicted after the true tokens before it. exp of the value is the perplexity. Values are
    comparable only for the same texts and the same vocabulary. Needs held-out texts, and a game with the task
    ``score``.

    Values:
    - held_out_nll: the negative log-likelihood; lower is better.
    """

    def figures(run_task: RunTask, held_out_texts: Texts) -> dict[str, float]:
        return {"held_out_nll": nats(run_task("score", "held_out", None))}

    return Metric(figures, {"held_out_nll": LOWER}, minimum=1, tasks=("score",), held_out_tasks=True)


def nats(scores: Mapping[str, np.ndarray]) -> float:
    """Mean negative log-likelihood of a token, from the outputs of the task ``score``."""
    return float(np.average(scores["nll"].astype(np.float64), weights=scores["tokens"]))
