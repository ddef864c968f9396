"""Similarity of the dependence of two columns, as in SDMetrics, and the total variation distance of pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np

from gan_cli.metrics import HIGHER, LOWER, Metric
from gan_cli.metrics.column_shapes import total_variation
from gan_cli.metrics.tables import Columns, codes, is_number, several_columns

_CORRELATED, _ASSOCIATED = 0.5, 0.3  # pairs above these thresholds are strong in SDMetrics
_BINS = 10  # number of intervals of a number, as in SDMetrics


def pair_trends() -> Metric:
    """Pair trends: mean similarity of all pairs of columns, as in SDMetrics, and their total variation.

    The similarity of two numbers or dates is 1 - half the difference of Pearson's correlation in the training rows
    and in the samples. It is 1 - the total variation distance of the joint distribution for two categories, and for
    a category beside a number, whose range is divided into 10 equal intervals, in the training rows and in the
    samples separately. Pairs whose correlation is undefined are left out. Equal to the property Column Pair Trends
    of SDMetrics 0.32, which draws 50,000 rows from larger tables, while this metric uses all rows. The quality
    report of SDMetrics 0.32 averages over the strong pairs only: numbers whose correlation is above 0.5 or below
    -0.5 in the training rows, and other pairs whose Cramér's V is above 0.3.

    Values:
    - pair_trends: the mean similarity, from 0 to 1; higher is better.
    - pair_trends_strong: the mean similarity of the strong pairs, left out if there are none; higher is better.
    - pair_tvd: mean total variation distance of the joint distributions of all pairs of columns of the samples and
      of the held-out rows (without held-out rows: the training rows), from 0 to 1, where numbers are divided at
      their deciles and a missing value is a value; lower is better.
    """

    def figures(fake_table: Columns, training_table: Columns, unseen_table: Columns) -> dict[str, float]:
        if len(training_table) < 2:
            raise ValueError("a table of a single column has no pairs. Use another metric")
        found = trends(training_table, fake_table)
        strong = {pair: found[pair] for pair in strong_pairs(training_table)}
        means = {"pair_trends": _mean(found.values()), "pair_trends_strong": _mean(strong.values())}
        defined = {name: value for name, value in means.items() if not math.isnan(value)}
        return {**defined, "pair_tvd": mean_pair_distance(unseen_table, fake_table)}

    names = {"pair_trends": HIGHER, "pair_trends_strong": HIGHER, "pair_tvd": LOWER}
    return Metric(figures, names, minimum=2, cannot=several_columns)


def _mean(scores: Iterable[float]) -> float:
    """The mean without NaN. NaN if there is no number."""
    known = [score for score in scores if not math.isnan(score)]
    return float(np.mean(known)) if known else math.nan


def trends(real: Columns, fake: Columns) -> dict[tuple[str, str], float]:
    """The similarity of each pair of columns, by their names. NaN if a correlation is undefined."""
    coded = {
        name: _intervals(values, fake[name]) if is_number(values) else codes(values, fake[name])
        for name, values in real.items()
    }
    found = {}
    for a, b in itertools.combinations(real, 2):
        if is_number(real[a]) and is_number(real[b]):
            first, second = correlation(real[a], real[b]), correlation(fake[a], fake[b])
            found[a, b] = 1 - abs(first - second) / 2
        else:
            found[a, b] = 1 - _distance(coded[a], coded[b])
    return found


def strong_pairs(real: Columns) -> list[tuple[str, str]]:
    """The pairs of columns that the quality report of SDMetrics 0.32 averages over."""
    coded = {name: (_intervals(values) if is_number(values) else codes(values))[0] for name, values in real.items()}
    found = []
    for a, b in itertools.combinations(real, 2):
        if is_number(real[a]) and is_number(real[b]):
            strong = abs(correlation(real[a], real[b])) > _CORRELATED
        else:
            strong = cramers_v(coded[a], coded[b]) > _ASSOCIATED
        if strong:
            found.append((a, b))
    return found


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramér's V of two arrays of integers: the square root of chi-squared / (n (min(rows, columns) - 1)).

    NaN if one of the arrays has a single value.
    """
    (a,), (b,) = codes(a), codes(b)
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    if min(rows, columns) < 2:
        return math.nan
    pairs, counts = np.unique(a * columns + b, return_counts=True)
    expected = np.bincount(a)[pairs // columns] * np.bincount(b)[pairs % columns] / len(a)
    # Pairs without rows contribute their expected counts, and all expected counts sum to the number of rows.
    squared = ((counts - expected) ** 2 / expected).sum() + len(a) - expected.sum()
    return math.sqrt(max(squared, 0) / len(a) / (min(rows, columns) - 1))


def mean_pair_distance(real: Columns, fake: Columns) -> float:
    """Mean total variation distance of all pairs of columns, with numbers divided at the deciles of ``real``."""
    coded = {
        name: quantile_codes(values, fake[name]) if is_number(values) else codes(values, fake[name])
        for name, values in real.items()
    }
    pairs = itertools.combinations(coded.values(), 2)
    return float(np.mean([_distance(first, second) for first, second in pairs]))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two columns in the rows with both values. NaN if it is undefined."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def quantile_codes(*parts: np.ndarray) -> list[np.ndarray]:
    """Numbers of the intervals between the deciles of the first part. A missing value has the number 10."""
    present = parts[0][~np.isnan(parts[0])]
    edges = np.unique(np.quantile(present, np.arange(1, _BINS) / _BINS)) if len(present) else np.zeros(0)
    return [np.where(np.isnan(part), _BINS, np.searchsorted(edges, part, "left")) for part in parts]


def _intervals(*parts: np.ndarray) -> list[np.ndarray]:
    """Numbers of the intervals of SDMetrics, which divides the range of each table separately.

    The largest value and missing values have the number ``_BINS`` + 1, as in SDMetrics.
    """
    present = [part[~np.isnan(part)] for part in parts]
    edges = [np.histogram_bin_edges(part, _BINS) for part in present]
    return [np.digitize(part, edge) for part, edge in zip(parts, edges, strict=True)]


def _distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Total variation distance of two columns' joint distribution in two tables, from the codes of both."""
    width = int(max(part.max() for part in second)) + 1
    real, fake = (a * width + b for a, b in zip(first, second, strict=True))
    return total_variation(real, fake)
