"""Diversity of samples relative to the data: a cheap test for mode collapse."""

from __future__ import annotations

import logging

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.metrics import modes

log = logging.getLogger(__name__)
SAMPLES = 128


def vendi(points: np.ndarray, width: float) -> float:
    """Vendi score: the effective number of distinct points (Friedman and Dieng 2023, eq. 3).

    The score is exp(H), where H is the entropy of the eigenvalues of K / n, and K is the matrix of the Gaussian
    kernel exp(-d^2 / (2 width^2)). The score is 1 if all n points coincide, and about n if the distances between
    all points are much larger than the width.

    Args:
        points: ``[n, features]``.
        width: width of the Gaussian kernel.
    """
    kernel = np.exp(-_squared_distances(points) / (2 * width**2))
    eigenvalues = np.clip(np.linalg.eigvalsh(kernel / len(points)), 1e-12, None)
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class Diversity:
    """Vendi score of up to 128 samples, divided by the Vendi score of up to 128 real examples.

    Distances are Euclidean distances between the examples, without feature extraction. The width of the kernel is a
    third of the median distance between real examples.

    Args:
        real: ``[n, ...]`` at least two real examples, in the value range of the generator's output.
    """

    def __init__(self, real: np.ndarray):
        points = _flat(real[:SAMPLES])
        distances = np.sqrt(_squared_distances(points))
        self._width = max(float(np.median(distances[np.triu_indices(len(points), 1)])) / 3, 1e-6)
        self._real = vendi(points, self._width)

    def __call__(self, samples: np.ndarray) -> float:
        """Ratio of the Vendi scores: about 1 if samples and data are equally diverse, near 0 after mode collapse.

        If a sample contains a value that is not finite, the ratio is 0.
        """
        points = _flat(samples[:SAMPLES])
        return vendi(points, self._width) / self._real if np.isfinite(points).all() else 0.0


class SampleFigures:
    """Computes metric values without feature extraction: diversity and, if the modes are known, mode coverage.

    Args:
        data: the data set with which the samples are compared.
    """

    def __init__(self, data: Dataset):
        self._data = data
        self._diversity: Diversity | None = None
        self._warned = False

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        """A dictionary from names to metric values. A data set of a single example has no diversity.

        Args:
            samples: ``[n, ...]``, in the value range of the generator's output.
        """
        figures = {}
        if self._data.size > 1:
            self._diversity = self._diversity or Diversity(self._data.spread(SAMPLES))
            figures["diversity"] = self._diversity(samples)
        elif not self._warned:
            self._warned = True
            log.warning("the metric diversity needs at least 2 examples in the data set and is left out.")
        return figures | (modes.coverage(self._points(samples), self._data.modes) if self._data.modes else {})

    def _points(self, samples: np.ndarray) -> np.ndarray:
        """The samples as points in the space of the known modes, ``[n, features]``."""
        values = self._data.feature.values(samples)
        return np.stack(list(values.values()), axis=1) if isinstance(values, dict) else values


def _flat(examples: np.ndarray) -> np.ndarray:
    return np.asarray(examples, np.float64).reshape(len(examples), -1)


def _squared_distances(points: np.ndarray) -> np.ndarray:
    lengths = (points**2).sum(1)
    squared: np.ndarray = lengths[:, None] + lengths[None] - 2 * points @ points.T
    return squared.clip(0, None)
