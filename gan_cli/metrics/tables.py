"""Helpers of the metrics of tables: codes, bins and matrices of columns, and the optional scikit-learn.

A table is a mapping from the names of columns to arrays ``[n]``: float64 with NaN for numbers and dates, and
strings with None for categories.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np

from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.types import Feature

Columns: TypeAlias = Mapping[str, np.ndarray]
_SERIAL = 5_000  # several threads wait for each other longer than they compute on fewer rows


def rows_of(table: Columns) -> int:
    """The number of rows of a table."""
    return len(next(iter(table.values()), ()))


def taken(table: Columns, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of a table at indices ``[m]``."""
    return {name: values[rows] for name, values in table.items()}


def is_number(values: np.ndarray) -> bool:
    """Whether a column contains numbers or dates, and not categories."""
    return values.dtype.kind == "f"


def missing(values: np.ndarray) -> np.ndarray:
    """bool ``[n]``: whether each value is missing."""
    if is_number(values):
        found: np.ndarray = np.isnan(values)
        return found
    return np.fromiter((value is None for value in values), bool, len(values))


def codes(*parts: np.ndarray) -> list[np.ndarray]:
    """Integers from 0, equal for equal values, for several arrays of one column. Missing values are equal."""
    joined = np.concatenate(parts)
    if joined.dtype.kind in "fi":
        found = np.unique(joined, return_inverse=True)[1]
    else:
        seen: dict[object, int] = {}
        found = np.fromiter((seen.setdefault(value, len(seen)) for value in joined), int, len(joined))
    return np.split(found, np.cumsum([len(part) for part in parts])[:-1])


def frequent(parts: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """float64 codes of the categories of several arrays, from the most frequent category on.

    The categories after the ``most`` - 1 most frequent ones share a code. The code of a missing value is NaN.
    """
    coded, absent = codes(*parts), [missing(part) for part in parts]
    counts = np.bincount(np.concatenate([code[~gone] for code, gone in zip(coded, absent, strict=True)]))
    place = np.empty(max(len(counts), max(code.max(initial=-1) for code in coded) + 1), int)
    place[:] = most - 1
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    ranks = [np.minimum(place[code], most - 1).astype(float) for code in coded]
    return [np.where(gone, np.nan, rank) for rank, gone in zip(ranks, absent, strict=True)]


def require_sklearn(metric: str) -> None:
    """Raise a UserError if scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise UserError(
            f"metric={metric}: needs the package scikit-learn. Install it with pip install 'gan_cli[table]'."
        )


def threads_for(rows: int) -> AbstractContextManager[object]:
    """A context in which scikit-learn fits to so many rows: with a single thread if they are few."""
    from threadpoolctl import threadpool_limits  # scikit-learn needs it

    found: AbstractContextManager[object] = threadpool_limits(1 if rows < _SERIAL else None)
    return found


def several_columns(feature: Feature, features: int | None) -> str | None:
    """The function ``Metric.cannot`` of a metric of several columns."""
    if isinstance(feature, Table) and len(feature.columns) < 2:
        return "a table of at least two columns. Use another metric"
    return None
