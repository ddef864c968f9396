"""The Inception score: higher if class predictions are confident and the predicted classes are diverse."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Metric
from gan_cli.types import PositiveInt


def inception_score(*, splits: PositiveInt = 10) -> Metric:
    """Inception score: exp E KL(p(y|x) || p(y)) (Salimans et al. 2016, section 4).

    p(y|x) is the predicted class distribution of a sample x, and p(y) is the mean of p(y|x) over the samples. The
    option ``features`` selects the network that predicts the classes. Published scores use features=inception.

    Args:
        splits: number of parts into which the samples are split. The parts have about equal numbers of samples, and
            the score is computed for each part.

    Values:
    - inception_score: mean of the score over the parts; higher is better.
    - inception_score_std: standard deviation of the score over the parts; neither higher nor lower is better.
    """

    def figures(fake_logits: np.ndarray, seed: int) -> dict[str, float]:
        logits = fake_logits[np.random.default_rng(seed).permutation(len(fake_logits))]
        found = np.array([_score(part) for part in np.array_split(logits, min(splits, len(logits)))])
        return {"inception_score": float(found.mean()), "inception_score_std": float(found.std())}

    return Metric(figures, {"inception_score": HIGHER, "inception_score_std": NEITHER}, minimum=1)


def _score(logits: np.ndarray) -> float:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p = np.exp(log_p)
    # A class with probability 0 for all samples contributes nothing, so the logarithm of the mean must not be -inf.
    log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))
