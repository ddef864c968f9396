"""How varied samples are beside the data: a cheap figure that falls when a generator's modes collapse."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.metrics import modes

SAMPLES = 128


def vendi(points: np.ndarray, width: float) -> float:
    """The effective number of different points: exp of the entropy of the eigenvalues of their kernel matrix over
    their number (Friedman and Dieng 2023, eq. 3), with the Gaussian kernel exp(-d^2 / (2 width^2)).

    Args:
        points: ``[n, features]``. It is 1 where all are one, and n where all are many widths apart.
    """
    kernel = np.exp(-_squared_distances(points) / (2 * width**2))
    eigenvalues = np.clip(np.linalg.eigvalsh(kernel / len(points)), 1e-12, None)
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class Diversity:
    """The Vendi score of samples over that of as many real examples, in the data's own space.

    The kernel's width is a third of the median distance between real examples.

    Args:
        real: ``[n, ...]`` real examples, scaled as the generator's.
    """

    def __init__(self, real: np.ndarray):
        points = _flat(real[:SAMPLES])
        distances = np.sqrt(_squared_distances(points))
        self._width = max(float(np.median(distances[np.triu_indices(len(points), 1)])) / 3, 1e-6)
        self._real = vendi(points, self._width)

    def __call__(self, samples: np.ndarray) -> float:
        """About 1 for samples as varied as the data, near 0 where they are all alike; 0 where one is not finite."""
        points = _flat(samples[:SAMPLES])
        return vendi(points, self._width) / self._real if np.isfinite(points).all() else 0.0


class SampleFigures:
    """Figures of merit that need nothing but samples: diversity, and mode coverage where the modes are known.

    Args:
        data: what the samples are compared with.
    """

    def __init__(self, data: Dataset):
        self._data = data
        self._diversity: Diversity | None = None

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        """The figures of samples ``[n, ...]``, scaled as the generator's."""
        if self._diversity is None:
            self._diversity = Diversity(self._data.spread(SAMPLES))
        figures = {"diversity": self._diversity(samples)}
        return figures | (modes.coverage(samples, self._data.modes) if self._data.modes else {})


def _flat(examples: np.ndarray) -> np.ndarray:
    return np.asarray(examples, np.float64).reshape(len(examples), -1)


def _squared_distances(points: np.ndarray) -> np.ndarray:
    lengths = (points**2).sum(1)
    return np.clip(lengths[:, None] + lengths[None] - 2 * points @ points.T, 0, None)
