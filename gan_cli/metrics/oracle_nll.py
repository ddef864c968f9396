"""The negative log-likelihood of samples under the oracle that drew the data."""

from __future__ import annotations

import numpy as np

from gan_cli.data.text.oracle import Oracle
from gan_cli.metrics import NEITHER, Metric


def oracle_nll() -> Metric:
    """Negative log-likelihood of samples under the oracle, in nats per token (Yu et al. 2017, eq. 9).

    The value of the oracle's own sentences is the entropy of the oracle. Nothing below it is better: one frequent
    token, repeated, has a smaller value, and so have copies of likely sentences. Read it beside ``forward_nll``,
    ``distinct`` and ``copied``. Needs dataset=oracle.

    Values:
    - oracle_nll: value of the samples; neither higher nor lower is better.
    - oracle_nll_real: value of the held-out sentences; neither higher nor lower is better.
    """

    def figures(
        fake_texts: np.ndarray, oracle: Oracle, held_out_texts: np.ndarray | None = None
    ) -> dict[str, float]:
        kinds = {"oracle_nll": fake_texts, "oracle_nll_real": held_out_texts}
        return {name: nats(oracle, texts) for name, texts in kinds.items() if texts is not None}

    return Metric(figures, dict.fromkeys(("oracle_nll", "oracle_nll_real"), NEITHER), minimum=1)


def nats(oracle: Oracle, texts: np.ndarray) -> float:
    """Mean negative log-likelihood of sentences ``[n, length]`` under the oracle, in nats per token."""
    return -float(oracle.log_likelihood(texts).mean(dtype=np.float64))
