"""The strength of the association between each pair of columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gan_cli.data.tables.columns import Column


_CATEGORIES = 50  # the rarer categories of a column count as one category


def associations(columns: Sequence[Column], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """A symmetric matrix ``[columns, columns]`` of associations between the columns.

    For two numbers, it is Pearson's correlation in [-1, 1] over the rows in which both are known. For two
    categories, it is Cramer's V (Cramer 1946, section 21.9). For a category and a number, it is the correlation
    ratio (Pearson 1905): the standard deviation of the means within the categories over that of all values. A
    missing category counts as a category. The association with a constant column is 0.

    Args:
        columns: the columns.
        values: mapping from the names of the columns to values ``[n]``, as ``Table.restore`` returns them.
    """
    numbers = [i for i, column in enumerate(columns) if column.numeric]
    texts = [i for i, column in enumerate(columns) if not column.numeric]
    found = np.eye(len(columns))
    x, known = _standardised([values[columns[i].name] for i in numbers])
    codes = [_codes(columns[i], values[columns[i].name]) for i in texts]
    if numbers:
        found[np.ix_(numbers, numbers)] = _pearson(x, known)
    for place, i in enumerate(texts):
        if numbers:
            found[i, numbers] = found[numbers, i] = _correlation_ratio(codes[place], x, known)
        for other in range(place):
            j = texts[other]
            found[i, j] = found[j, i] = _cramers_v(codes[place], codes[other])
    np.fill_diagonal(found, 1.0)
    return found


def _standardised(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A pair ``[n, columns]``: values with mean 0, standard deviation 1, and 0 where missing; which are known."""
    if not values:
        return np.zeros((0, 0)), np.zeros((0, 0))
    x = np.stack(values, axis=1)
    known = ~np.isnan(x)
    count = np.maximum(known.sum(0), 1)
    x = np.where(known, x, 0) - np.where(known, x, 0).sum(0) / count
    x = np.where(known, x, 0)
    std = np.sqrt((x**2).sum(0) / count)
    return x / np.where(std > 0, std, 1), known.astype(float)


def _pearson(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    n = np.maximum(known.T @ known, 1)
    mean = x.T @ known / n  # of the row's column, over the rows in which the other column is known too
    variance = (x**2).T @ known / n - mean**2
    covariance = x.T @ x / n - mean * mean.T
    scale = np.sqrt(np.maximum(variance * variance.T, 0))
    return np.clip(np.where(scale > 1e-12, covariance / np.maximum(scale, 1e-12), 0), -1, 1)


def _codes(column: Column, values: np.ndarray) -> np.ndarray:
    """A number for each text, where all but the most frequent texts share a number."""
    texts = np.where(column.absent(values), "\0", values).astype(str)
    _, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.empty(len(counts), int)
    order[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    found: np.ndarray = np.minimum(order[codes], _CATEGORIES - 1)
    return found


def _correlation_ratio(codes: np.ndarray, x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The correlation ratio of a category with each of the numbers ``x``, which have mean 0 and variance 1 or 0."""
    one_hot = np.eye(codes.max(initial=0) + 1)[codes]
    count = one_hot.T @ known
    between = ((one_hot.T @ x) ** 2 / np.maximum(count, 1)).sum(0)
    return np.asarray(np.sqrt(np.clip(between / np.maximum((x**2).sum(0), 1e-12), 0, 1)))


def _cramers_v(codes: np.ndarray, others: np.ndarray) -> float:
    shape = int(codes.max(initial=0)) + 1, int(others.max(initial=0)) + 1
    counts = np.bincount(codes * shape[1] + others, minlength=shape[0] * shape[1]).reshape(shape)
    expected = np.outer(counts.sum(1), counts.sum(0)) / max(len(codes), 1)
    chi2 = ((counts - expected) ** 2 / np.maximum(expected, 1e-12)).sum()
    smaller = min(shape) - 1
    return float(np.sqrt(min(chi2 / max(len(codes), 1) / smaller, 1.0))) if smaller else 0.0
