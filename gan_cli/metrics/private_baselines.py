"""Private baselines: simple generators that read the training data once, under differential privacy.

Each function releases sums over the training examples with Gaussian noise, and draws samples from what it has
released. They need no training, so a private GAN is worth its time only if it is better. Two data sets are
neighbours if one has an example more than the other. The number of examples is public.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from gan_cli.data.tables.columns import Column
from gan_cli.metrics.tables import Columns

_COUNT = 0.1  # weight of an example in the counts of the classes: rough counts suffice, so most noise goes there
_WIDTH = 0.3  # standard deviation of the samples about the mean of their class, on the scale from 0 to 1
_BINS = 20  # intervals of a number, of equal width


def noise_multiplier(epsilon: float, delta: float) -> float:
    """Standard deviation of the noise that makes a sum of sensitivity 1 (epsilon, delta)-private.

    The analytic Gaussian mechanism (Balle and Wang 2018, theorem 8), which is exact.
    """

    def excess(log_noise: float) -> float:
        noise = math.exp(log_noise)
        half, shift = 0.5 / noise, epsilon * noise
        return float(ndtr(half - shift) - np.exp(epsilon + log_ndtr(-half - shift))) - delta

    return math.exp(brentq(excess, -10.0, 20.0))


def class_means(
    x: np.ndarray, labels: np.ndarray, n: int, *, epsilon: float, delta: float, clip: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples about noisy means of each class.

    Args:
        x: images ``[m, *shape]`` with values from 0 to 1.
        labels: classes ``[m]``.
        n: number of samples. The classes follow each other, 0, 1, ..., 0, 1, ...
        epsilon: the privacy parameter epsilon of the release.
        delta: the privacy parameter delta of the release.
        clip: largest norm of an image; larger images are scaled down to it.
        seed: seed of the noise and of the samples.

    Returns:
        A pair: samples ``[n, *shape]`` with values from 0 to 1, and their classes int32 ``[n]``.
    """
    rng = np.random.default_rng(seed)
    vectors = _clipped(x.reshape(len(x), -1), clip)
    sums = _sums(vectors, labels, clip, squares=False)
    means, _ = _moments(sums, clip, len(x), noise_multiplier(epsilon, delta), rng)
    chosen = np.arange(n, dtype=np.int32) % len(means)
    drawn = np.clip(means[chosen], 0, 1) + _WIDTH * rng.standard_normal((n, vectors.shape[1]))
    return np.clip(drawn, 0, 1).reshape(n, *x.shape[1:]), chosen


def class_gaussians(
    x: np.ndarray,
    labels: np.ndarray,
    n: int,
    *,
    epsilon: float,
    delta: float,
    clip: float,
    frequencies: int = 8,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a Gaussian for each class, with noisy means and a noisy covariance that the classes share.

    The Gaussians describe the lowest frequencies of the images, because the basis must not depend on the data.

    Args:
        x: square images ``[m, side, side, channels]`` with values from 0 to 1.
        labels: as for ``class_means``.
        n: as for ``class_means``.
        epsilon: as for ``class_means``.
        delta: as for ``class_means``.
        clip: largest norm of the frequencies of an image; larger images are scaled down to it.
        frequencies: number of frequencies of the discrete cosine transform in each direction.
        seed: seed of the noise and of the samples.

    Returns:
        As for ``class_means``.
    """
    rng = np.random.default_rng(seed)
    kept = fft.dctn(x, axes=(1, 2), norm="ortho")[:, :frequencies, :frequencies]
    vectors = _clipped(kept.reshape(len(x), -1), clip)
    sums = _sums(vectors, labels, clip, squares=True)
    means, covariance = _moments(sums, clip, len(x), noise_multiplier(epsilon, delta), rng)
    assert covariance is not None
    sizes, axes = np.linalg.eigh(covariance)
    chosen = np.arange(n, dtype=np.int32) % len(means)
    codes = rng.standard_normal((n, len(sizes))) * np.sqrt(np.maximum(sizes, 0))
    drawn = np.zeros((n, *x.shape[1:]))
    drawn[:, :frequencies, :frequencies] = (means[chosen] + codes @ axes.T).reshape(n, *kept.shape[1:])
    return np.clip(fft.idctn(drawn, axes=(1, 2), norm="ortho"), 0, 1), chosen


def _clipped(vectors: np.ndarray, clip: float) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.minimum(1, clip / np.maximum(norms, 1e-12)))


def _sums(vectors: np.ndarray, labels: np.ndarray, clip: float, squares: bool) -> list[np.ndarray]:
    """The sums that are released, in which one example changes entries of the norm ``_sensitivity(squares)``.

    The result is the sum of the vectors of each class ``[classes, size]``, the number of vectors of each class
    ``[classes]`` and, with ``squares``, the entries on and above the diagonal of the sum of v v', all scaled.

    Args:
        vectors: ``[m, size]``, whose norms are at most ``clip``.
        labels: classes ``[m]``. The number of classes is public.
        clip: largest norm of a vector.
        squares: whether the covariance is released.
    """
    member, scaled = np.eye(int(labels.max()) + 1)[labels], vectors / clip
    second = [np.triu(scaled.T @ scaled)] if squares else []
    return [member.T @ scaled, _COUNT * member.sum(0), *second]


def _sensitivity(squares: bool) -> float:
    return math.sqrt(1 + _COUNT**2 + squares)


def _moments(
    sums: list[np.ndarray], clip: float, m: int, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """A pair: noisy means ``[classes, size]``, and the noisy covariance within the classes, or None.

    Args:
        sums: the result of ``_sums``.
        clip: largest norm of a vector.
        m: the number of vectors, which is public.
        noise: standard deviation of the noise for a sensitivity of 1.
        rng: generator of the noise.
    """
    scale = noise * _sensitivity(len(sums) == 3)
    first, counts, *second = (one + scale * rng.standard_normal(one.shape) for one in sums)
    shares = np.maximum(counts / _COUNT, 1)
    shares *= m / shares.sum()
    means = clip * first / shares[:, None]
    if not second:
        return means, None
    upper = np.triu(clip**2 * second[0])
    between = (shares[:, None, None] * means[:, :, None] * means[:, None, :]).sum(0)
    return means, (upper + np.triu(upper, 1).T - between) / m


def within_label(
    training: Columns, columns: Sequence[Column], label: str, n: int, *, epsilon: float, delta: float, seed: int
) -> dict[str, np.ndarray]:
    """Rows whose columns are drawn independently within the label, from noisy histograms.

    Args:
        training: the training rows.
        columns: the columns with public categories and ranges.
        label: the column that is the class of a row, one of categories.
        n: number of rows.
        epsilon: the privacy parameter epsilon of the release.
        delta: the privacy parameter delta of the release.
        seed: seed of the noise and of the samples.

    """
    cells = {column.name: _Cells.of(column) for column in columns}
    rng = np.random.default_rng(seed)
    # One row adds 1 to one cell of the histogram of each column.
    scale = noise_multiplier(epsilon, delta) * math.sqrt(len(columns))
    classes, real_class = cells[label].size, cells[label].places(training[label])
    of_class = _drawn(_noisy(real_class, classes, scale, rng), n, rng)
    found = {}
    for name, of_column in cells.items():
        chosen, places = of_class.copy(), of_column.places(training[name])
        for one in range(classes if name != label else 0):
            rows = np.flatnonzero(of_class == one)
            counts = _noisy(places[real_class == one], of_column.size, scale, rng)
            chosen[rows] = _drawn(counts, len(rows), rng)
        found[name] = of_column.values(chosen, rng)
    return found


class _Cells(NamedTuple):
    """The cells of the histogram of a column: its categories, or intervals of a number, and a missing value.

    Attributes:
        column: the column.
        edges: the ends of the intervals of a number, in increasing order. Empty for categories.
    """

    column: Column
    edges: np.ndarray

    @classmethod
    def of(cls, column: Column) -> _Cells:
        """The cells of a column. A whole number of few values has an interval for each of them."""
        if not column.numeric:
            return cls(column, np.zeros(0))
        low, high = column.low, column.high
        assert low is not None and high is not None  # a fitted column has a range
        if column.kind == "integer" and high - low < _BINS:
            return cls(column, np.arange(low, high + 2) - 0.5)
        return cls(column, np.linspace(low, high, _BINS + 1))

    @property
    def size(self) -> int:
        """Number of cells."""
        known = len(self.edges) - 1 if self.column.numeric else len(self.column.categories)
        return known + self.column.missing

    def places(self, values: np.ndarray) -> np.ndarray:
        """The cells int ``[m]`` of values ``[m]``. Values outside the range have the nearest cell."""
        if not self.column.numeric:
            codes: dict[object, int] = {text: code for code, text in enumerate(self.column.categories)}
            return np.fromiter((codes.get(value, self.size - 1) for value in values), int, len(values))
        found = np.clip(np.searchsorted(self.edges, values, "right") - 1, 0, len(self.edges) - 2)
        return np.asarray(np.where(np.isnan(values), self.size - 1, found))

    def values(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Values ``[n]`` of cells ``[n]``, drawn uniformly from the intervals of a number."""
        column = self.column
        if not column.numeric:
            texts = np.array([*column.categories, None], object)
            return np.asarray(texts[places])
        left, right = self.edges[:-1], self.edges[1:]
        cells = np.minimum(places, len(left) - 1)
        drawn = rng.uniform(left[cells], right[cells])
        if column.decimals is not None or column.kind == "integer":
            drawn = np.round(drawn, column.decimals or 0)
        drawn = np.clip(drawn, column.low, column.high)
        return np.asarray(np.where(column.missing & (places == self.size - 1), np.nan, drawn))


def _noisy(cells: np.ndarray, size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The number of times that each cell occurs, with noise."""
    return np.bincount(cells, minlength=size) + scale * rng.standard_normal(size)


def _drawn(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Random cells int ``[n]`` by noisy numbers of occurrences. If none is positive, all are equally likely."""
    shares = np.maximum(counts, 0)
    shares = shares if shares.sum() > 0 else np.ones(len(counts))
    return rng.choice(len(shares), n, p=shares / shares.sum())
