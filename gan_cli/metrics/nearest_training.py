"""Whether a generator repeats its training data."""

from __future__ import annotations

import math

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics.neighbours import neighbours

# Three standard deviations: one sound generator in seven hundred is suspected.
_SUSPECT = -3.0


def nearest_training() -> Metric:
    """How near samples are to the training data, beside how near real data are that training never saw.

    The test of Meehan et al. 2020 (section 3, on the whole space as one cell): the Mann-Whitney statistic of the
    two sets of distances, standardised. Far below zero, samples lie nearer to training examples than new real data
    do, and ``memorised`` is 1. Features must be fine enough to tell an example from one like it. Copies of training
    examples that are not among ``real`` (gan-eval takes 50,000 at most) are not found.

    Returns:
        ``nearest_training`` and ``nearest_training_held_out``, the median distances; ``copying``, the probability
        that a sample is nearer to the training data than a held-out example (one half where they are alike);
        ``copying_z``, how many standard deviations that is from one half, negative where it is nearer;
        ``memorised``, 1 where that is below -3.
    """

    def figures(fake: np.ndarray, real: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
        of_fake, of_held_out = (np.sqrt(neighbours(points, real)[1]) for points in (fake, held_out))
        both = np.concatenate([of_fake, of_held_out])
        n, m = len(of_fake), len(of_held_out)
        ranks = _ranks(both)[:n].sum()
        greater = ranks - n * (n + 1) / 2  # pairs in which the sample is the farther one, ties counting one half
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


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]
