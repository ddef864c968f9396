"""Frechet distance between Gaussians fitted to features, and its extrapolation to infinitely many samples."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

import numpy as np

from gan_cli.data.capacity import available_memory
from gan_cli.metrics import LOWER, Metric
from gan_cli.types import Feature, PositiveInt

log = logging.getLogger(__name__)
_BLOCK = 4096
_COVARIANCES = 5  # number of matrices of the size of a covariance that the distance needs at a time


class Moments(NamedTuple):
    """Mean ``[f]`` and unbiased covariance ``[f, f]`` of features, in float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Mean and unbiased covariance of features ``[n, f]``.

    The host computes the moments in float64, because the distance is a small difference of large traces, and
    float64 is slow or missing on accelerators.

    Raises:
        ValueError: there are fewer than two examples, or the covariances do not fit into memory.
    """
    if len(features) < 2:
        raise ValueError("a covariance needs at least two examples")
    if problem := _too_many(features.shape[1]):
        raise ValueError(f"needs {problem}")
    mean = features.mean(0, dtype=np.float64)
    scatter = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), _BLOCK):
        centred = features[start : start + _BLOCK].astype(np.float64) - mean
        scatter += centred.T @ centred
    return Moments(mean, scatter / (len(features) - 1))


def _too_many(features: int) -> str | None:
    """The memory that the covariances need and a remedy, or None if they fit."""
    needed = _COVARIANCES * 8 * features**2
    if needed <= available_memory():
        return None
    return (
        f"about {needed / 2**30:.0f} GiB of memory for the covariances of {features} features. Use "
        "features=thumbnails or features=inception, or another metric, e.g. metric=kid"
    )


def _cannot(feature: Feature, features: int | None) -> str | None:
    return None if features is None else _too_many(features)


def distance(first: Moments, second: Moments) -> float:
    """The Frechet distance |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6)."""
    return _distance(first, _root(first.covariance), second)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix A with A^T A = covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = np.sqrt(np.clip(eigenvalues, 0, None))[:, None] * vectors.T
    return root


def _distance(first: Moments, root: np.ndarray, second: Moments) -> float:
    # The traces of (C1 C2)^(1/2) and (A C2 A^T)^(1/2) are equal. The latter matrix is symmetric, so its eigenvalues
    # are real even if C1 C2 is nearly singular. C1 C2 is singular if there are fewer samples than features.
    eigenvalues = np.linalg.eigvalsh(root @ second.covariance @ root.T)
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    spread -= 2 * np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return max(float(((first.mean - second.mean) ** 2).sum() + spread), 0.0)  # rounding can make it negative


def fid() -> Metric:
    """Frechet distance between features of samples and real data (FID, Heusel et al. 2017, eq. 6).

    The distance has a positive bias that decreases with the number of samples. Only values from equal numbers of
    samples are comparable.

    Values:
    - fid: the distance; lower is better.
    """

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        _warn_of_few(len(fake), len(real), fake.shape[1])
        return {"fid": float(distance(moments(real), moments(fake)))}

    return Metric(figures, {"fid": LOWER}, cannot=_cannot)


def fid_infinity(*, points: PositiveInt = 15) -> Metric:
    """Frechet distance, extrapolated to infinitely many samples (Chong and Forsyth 2020).

    For several values of n, the distance is computed from n random samples. The values of n range from a tenth of
    the number of samples to the number of samples. The metric value is the intercept of a straight line that is
    fitted to the distance as a function of 1/n.

    Args:
        points: number of values of n for which the distance is computed.

    Values:
    - fid_infinity: the extrapolated distance; lower is better.
    """

    def figures(fake: np.ndarray, real: np.ndarray, seed: int) -> dict[str, float]:
        _warn_of_few(len(fake) // 10, len(real), fake.shape[1])
        reference = moments(real)
        root = _root(reference.covariance)
        sizes = np.unique(np.linspace(max(len(fake) / 10, 2), len(fake), points).astype(int))
        rng = np.random.default_rng(seed)
        found = [_distance(reference, root, moments(fake[rng.permutation(len(fake))[:size]])) for size in sizes]
        if len(sizes) < 2:
            return {"fid_infinity": float(found[0])}
        return {"fid_infinity": float(np.polyfit(1 / sizes, found, 1)[1])}

    return Metric(figures, {"fid_infinity": LOWER}, cannot=_cannot)


@functools.cache  # warns once for each combination of the three arguments
def _warn_of_few(fake: int, real: int, features: int) -> None:
    if min(fake, real) <= features:
        log.warning(
            "the Frechet distance of %d samples and %d real examples is biased upwards, because the covariance of "
            "%d features needs at least %d samples and as many real examples. Use more samples or more real data.",
            fake, real, features, features + 1,
        )  # fmt: skip
