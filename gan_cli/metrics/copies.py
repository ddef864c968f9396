"""Exact copies: the share of generated rows that are equal to a training row."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import NEITHER, Metric
from gan_cli.metrics.tables import Columns, codes, is_number

_DECIMALS = 6  # largest number of decimals of rounded numbers


def copies() -> Metric:
    """Exact copies: share of the samples that are equal to a training row, as it is written.

    Numbers are compared after rounding to the decimals of the training rows. Rows of few columns with few values
    recur by chance, so compare with the share of the held-out rows.

    Values:
    - copies: share of the samples; neither higher nor lower is better. A larger share than ``copies_held_out`` is a
      sign of memorisation.
    - copies_held_out: share of the held-out rows that are equal to a training row, left out without held-out rows;
      neither higher nor lower is better.
    """

    def figures(
        fake_table: Columns, training_table: Columns, held_out_table: Columns | None = None
    ) -> dict[str, float]:
        if held_out_table is None:
            return {"copies": shares_of_copies(training_table, fake_table)[0]}
        made, unseen = shares_of_copies(training_table, fake_table, held_out_table)
        return {"copies": made, "copies_held_out": unseen}

    return Metric(figures, {"copies": NEITHER, "copies_held_out": NEITHER}, minimum=1)


def shares_of_copies(training: Columns, *tables: Columns) -> list[float]:
    """For each table, the share of its rows that are equal to a training row."""
    rows: list[np.ndarray] | None = None
    for name, values in training.items():
        parts = [table[name] for table in (training, *tables)]
        if is_number(values) and (places := decimals(values)) is not None:
            parts = [np.round(part, places) for part in parts]
        coded = codes(*parts)
        # The pair of the code of the columns before and the code of this column has a code again.
        rows = (
            coded if rows is None else codes(*(a * (_top(coded) + 1) + b for a, b in zip(rows, coded, strict=True)))
        )
    assert rows is not None
    return [float(np.isin(part, rows[0]).mean()) for part in rows[1:]]


def decimals(values: np.ndarray) -> int | None:
    """Number of decimals, at most 6, to which all numbers of a column are rounded. None if there are more."""
    present = values[~np.isnan(values)]
    for places in range(_DECIMALS + 1):
        if np.allclose(present, np.round(present, places), rtol=1e-12, atol=0):
            return places
    return None


def _top(parts: list[np.ndarray]) -> int:
    return int(max(part.max(initial=0) for part in parts))
