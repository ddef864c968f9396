"""How sure a classifier is of each sample, and how varied what it names is."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Metric
from gan_cli.types import PositiveInt


def inception_score(*, splits: PositiveInt = 10) -> Metric:
    """exp of the mean KL divergence of a sample's classes from all samples' (Salimans et al. 2016, section 4).

    The mean over ``splits`` parts, and its standard deviation. Called Inception score whatever the classifier.
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
    # A class that no sample has, to the last digit, adds nothing: its zeros are kept from the logarithm.
    log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))
