"""Similarity of the distribution of each column, as in SDMetrics."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import HIGHER, Metric
from gan_cli.metrics.tables import Columns, codes, is_number, missing

_DECIMALS = 14  # SDMetrics rounds numbers to 14 decimals


def column_shapes() -> Metric:
    """Column shapes: mean similarity of the columns of samples and training rows, as in SDMetrics.

    The similarity is 1 - the Kolmogorov-Smirnov statistic for numbers and dates, and 1 - the total variation
    distance for categories. Missing values are left out, and so is a column without any value in the samples or in
    the training rows. Equal to the property Column Shapes of SDMetrics 0.32.

    Values:
    - column_shapes: the mean, from 0 to 1; higher is better.
    """

    def figures(fake_table: Columns, training_table: Columns) -> dict[str, float]:
        scores = list(shapes(training_table, fake_table).values())
        return {"column_shapes": float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")}

    return Metric(figures, {"column_shapes": HIGHER}, minimum=1)


def shapes(real: Columns, fake: Columns) -> dict[str, float]:
    """The similarity of each column, by name. NaN for a column without any value in one of the tables."""
    return {name: _similarity(values, fake[name]) for name, values in real.items()}


def _similarity(real: np.ndarray, fake: np.ndarray) -> float:
    real, fake = real[~missing(real)], fake[~missing(fake)]
    if not len(real) or not len(fake):
        return float("nan")
    return 1 - (kolmogorov_smirnov(real, fake) if is_number(real) else total_variation(*codes(real, fake)))


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic: the largest difference of two empirical distribution functions."""
    a, b = np.sort(a.round(_DECIMALS)), np.sort(b.round(_DECIMALS))
    both = np.concatenate([a, b])
    shares = [np.searchsorted(part, both, "right") / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation distance, from 0 to 1, of the distributions of two arrays of integers from 0."""
    size = int(max(a.max(), b.max())) + 1
    if size > 4 * (len(a) + len(b)):  # the codes of pairs may be much larger than their number
        a, b = codes(a, b)
        size = int(max(a.max(), b.max())) + 1
    shares = [np.bincount(part, minlength=size) / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
