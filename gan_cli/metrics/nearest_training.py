"""A test for memorisation: whether samples lie closer to the training data than held-out data do."""

from __future__ import annotations

import math

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics.neighbours import neighbours

# At three standard deviations, the probability of a false alarm is about 1 in 700.
_SUSPECT = -3.0


def nearest_training() -> Metric:
    """Memorisation test: distances of samples and of held-out data to the nearest training example.

    The standardised Mann-Whitney statistic compares the distances of the samples with the distances of the held-out
    examples (Meehan et al. 2020, section 3, with the whole space as one cell). The features must distinguish
    an example from similar examples. The test uses at most 50,000 training examples and does not detect copies of
    other training examples.

    Values:
    - nearest_training: median distance from a sample to the nearest training example; neither higher nor lower is
      better.
    - nearest_training_held_out: median distance from a held-out example to the nearest training example; neither
      higher nor lower is better.
    - copying: probability that a sample is closer to the training data than a held-out example is; lower is better.
      The probability is 0.5 if samples and held-out examples have the same distribution.
    - copying_z: standardised Mann-Whitney statistic, which is negative if ``copying`` is above 0.5; neither higher
      nor lower is better.
    - memorised: 1 if ``copying_z`` is below -3, otherwise 0; lower is better.
    """

    def figures(fake: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
        of_fake, of_held_out = (np.sqrt(neighbours(points, training)[1]) for points in (fake, held_out))
        both = np.concatenate([of_fake, of_held_out])
        n, m = len(of_fake), len(of_held_out)
        ranks = mean_ranks(both)[:n].sum()
        # The number of pairs in which the sample is farther from the training data than the held-out example. Ties
        # count as 1/2.
        greater = ranks - n * (n + 1) / 2
        z = (greater - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
        return {
            "nearest_training": float(np.median(of_fake)),
            "nearest_training_held_out": float(np.median(of_held_out)),
            "copying": float(1 - greater / (n * m)),
            "copying_z": float(z),
            "memorised": float(z < _SUSPECT),
        }

    return Metric(
        figures,
        {
            "nearest_training": NEITHER,
            "nearest_training_held_out": NEITHER,
            "copying": LOWER,
            "copying_z": NEITHER,
            "memorised": LOWER,
        },
        minimum=1,
    )


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks of values in ascending order from 1, where equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]
