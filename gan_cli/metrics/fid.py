"""The Frechet distance of two Gaussians fitted to features, and what it would be of endless samples."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.types import PositiveInt

log = logging.getLogger(__name__)
_BLOCK = 4096


class Moments(NamedTuple):
    """Mean ``[f]`` and unbiased covariance ``[f, f]`` of features, in float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Of features ``[n, f]``.

    On the host in float64, which accelerators lack or are slow at: the distance is a small difference of large
    traces.

    Raises:
        ValueError: there is one example only.
    """
    if len(features) < 2:
        raise ValueError("a covariance needs two examples")
    mean = features.mean(0, dtype=np.float64)
    scatter = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), _BLOCK):
        centred = features[start : start + _BLOCK].astype(np.float64) - mean
        scatter += centred.T @ centred
    return Moments(mean, scatter / (len(features) - 1))


def distance(first: Moments, second: Moments) -> float:
    """Heusel et al. 2017, eq. 6: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))."""
    return _distance(first, _root(first.covariance), second)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A with A^T A = covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.clip(eigenvalues, 0, None))[:, None] * vectors.T


def _distance(first: Moments, root: np.ndarray, second: Moments) -> float:
    # (C1 C2)^(1/2) has the trace of (A C2 A^T)^(1/2), which is symmetric and stays real where C1 C2 is nearly
    # singular, as it is where there are fewer samples than features.
    eigenvalues = np.linalg.eigvalsh(root @ second.covariance @ root.T)
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    spread -= 2 * np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return float(((first.mean - second.mean) ** 2).sum() + spread)


def fid() -> Metric:
    """The Frechet distance of the features of samples and of real data (Heusel et al. 2017, eq. 6).

    It falls with the number of samples: figures compare at equal numbers only.
    """

    def figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        _warn_of_few(len(fake), len(real), fake.shape[1])
        return {"fid": float(distance(moments(real), moments(fake)))}

    return Metric(figures, {"fid": LOWER})


def fid_infinity(*, points: PositiveInt = 15) -> Metric:
    """The Frechet distance without the generator's bias: extrapolated to endless samples (Chong and Forsyth 2020).

    A line through the distances of ``points`` numbers of samples, from a tenth to all, over one over the number;
    where it meets zero.
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

    return Metric(figures, {"fid_infinity": LOWER})


@functools.cache  # once for each size is enough
def _warn_of_few(fake: int, real: int, features: int) -> None:
    if min(fake, real) <= features:
        log.warning(
            "%d samples and %d real examples: a covariance of %d features needs at least %d of each; the distance "
            "is too large", fake, real, features, features + 1,
        )  # fmt: skip
