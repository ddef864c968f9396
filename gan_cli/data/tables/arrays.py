"""Columns of a table as arrays of an ``.npz`` file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gan_cli.data.tables.columns import Column


def arrays_of(columns: Sequence[Column], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns as arrays of an ``.npz`` file: texts, integers, float64, or dates as ``datetime64[s]``.

    A missing value is an empty text, NaN or NaT. Integers with missing values are float64.
    """
    found = {}
    for column in columns:
        values = rows[column.name]
        if column.kind == "date":
            found[column.name] = _dates(values)
        elif column.kind == "integer" and not np.isnan(values).any():
            found[column.name] = values.astype(np.int64)
        elif column.numeric:
            found[column.name] = values
        else:
            found[column.name] = np.where(column.absent(values), "", values).astype(str)
    return found


def _dates(values: np.ndarray) -> np.ndarray:
    missing = np.isnan(values)
    dates = np.where(missing, 0, values).astype("datetime64[s]")
    return np.where(missing, np.datetime64("NaT", "s"), dates)
