"""The negative log-likelihood of fresh sentences of the oracle under the generator."""

from __future__ import annotations

import numpy as np

from gan_cli.data.text.oracle import Oracle
from gan_cli.metrics import LOWER, Metric, RunTask
from gan_cli.metrics.held_out_nll import nats
from gan_cli.types import PositiveInt

_FRESH = 0x667265  # tells the random numbers of fresh sentences from those of the data


def forward_nll(*, sentences: PositiveInt = 10_000) -> Metric:
    """Negative log-likelihood of fresh sentences of the oracle under the generator, in nats per token.

    The value is large for a generator that leaves out sentences, which the metric ``oracle_nll`` does not notice.
    The sentences are drawn anew from the seed of the evaluation. Needs dataset=oracle, and a game with the task
    ``score``.

    Args:
        sentences: number of sentences.

    Values:
    - forward_nll: the negative log-likelihood; lower is better, down to the value of ``oracle_nll`` for real
      sentences.
    """

    def figures(run_task: RunTask, oracle: Oracle, seed: int) -> dict[str, float]:
        return {"forward_nll": nats(run_task("score", {"x": fresh(oracle, seed, sentences)}, None))}

    return Metric(figures, {"forward_nll": LOWER}, minimum=1, tasks=("score",))


def fresh(oracle: Oracle, seed: int, n: int) -> np.ndarray:
    """``n`` sentences of the oracle that are not those of a data set, ints ``[n, length]``."""
    return oracle.sample(np.random.default_rng([seed, _FRESH]), n)
