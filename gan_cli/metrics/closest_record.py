"""A test for memorisation of tables: whether samples are nearer to training rows than to held-out rows."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import NEITHER, Metric
from gan_cli.metrics.tables import Columns, codes, is_number, rows_of, taken

_MOST = 5_000  # largest number of samples that are compared with all rows
_RECORDS = 20_000  # largest number of training rows, and of held-out rows
_BLOCK = 500  # samples whose distances are in memory at a time
_MISSING = 1.5  # place of a missing value beside the ranks from 0 to 1: its mean distance to another value is 1


def closest_record() -> Metric:
    """Memorisation test of tables: share of the samples that are nearer to a training than a held-out row.

    The distance of two rows is the mean over the columns: the difference of the ranks of two numbers, divided by
    the number of rows, and 0 or 1 for equal or different categories. As many training rows as held-out rows are
    drawn at random, at most 20,000 each, and at most 5,000 samples. Equal distances count as 1/2. Copies of
    training rows that are not drawn are as near to either part, so the share of a generator of copies is only about
    1/2 + 1/2 held-out rows / training rows, e.g. 0.625 with a fifth of the rows held out.

    Values:
    - closest_record_share: the share; neither higher nor lower is better. The share is 0.5 if samples are as near
      to training rows as to rows that the model has not seen, and larger if the model repeats training rows.
    - closest_record_share_copies: the share of the training rows themselves, which a generator of copies reaches;
      neither higher nor lower is better.
    """

    def figures(
        fake_table: Columns, training_table: Columns, held_out_table: Columns, seed: int
    ) -> dict[str, float]:
        copied = training_table, training_table, held_out_table
        return {
            "closest_record_share": share(fake_table, training_table, held_out_table, seed),
            "closest_record_share_copies": share(*copied, seed),
        }

    return Metric(
        figures, dict.fromkeys(("closest_record_share", "closest_record_share_copies"), NEITHER), minimum=1
    )


def share(fake: Columns, training: Columns, held_out: Columns, seed: int = 0) -> float:
    """Share of the rows of ``fake`` that are nearer to a row of ``training`` than to a row of ``held_out``."""
    rng = np.random.default_rng(seed)
    count = min(rows_of(training), rows_of(held_out), _RECORDS)
    sizes = (min(rows_of(fake), _MOST), count, count)
    tables = (fake, training, held_out)
    chosen = [taken(t, rng.permutation(rows_of(t))[:n]) for t, n in zip(tables, sizes, strict=True)]
    made, *records = _places(chosen)
    first, second = (_nearest(made, one) for one in records)
    return float(np.mean(np.where(first == second, 0.5, first < second)))


def _places(tables: list[dict[str, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each table a pair: ranks of the numbers and codes of the categories, both float64 ``[n, columns]``.

    The ranks are shares of the training and held-out rows together, so that neither of them is favoured.
    """
    ranks: list[list[np.ndarray]] = [[] for _ in tables]
    coded: list[list[np.ndarray]] = [[] for _ in tables]
    for name, values in tables[0].items():
        parts = [table[name] for table in tables]
        if is_number(values):
            known = np.sort(np.concatenate(parts[1:]))
            known = known[~np.isnan(known)]
            found = [np.where(np.isnan(part), _MISSING, _rank(part, known)) for part in parts]
        else:
            found = [code.astype(float) for code in codes(*parts)]
        for into, part in zip(ranks if is_number(values) else coded, found, strict=True):
            into.append(part)
    return [
        (np.stack(r, 1) if r else np.zeros((n, 0)), np.stack(c, 1) if c else np.zeros((n, 0)))
        for r, c, n in zip(ranks, coded, map(rows_of, tables), strict=True)
    ]


def _rank(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Share of the sorted numbers ``known`` that are smaller, where equal numbers count as 1/2."""
    both = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
    return both / max(2 * len(known), 1)


def _nearest(points: tuple[np.ndarray, np.ndarray], records: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The distance ``[n]`` of each point to the nearest record, summed over the columns."""
    from scipy.spatial.distance import cdist

    found = []
    for start in range(0, len(points[0]), _BLOCK):
        numbers, categories = (part[start : start + _BLOCK] for part in points)
        distances = np.zeros((len(numbers), len(records[0])))
        if numbers.shape[1]:
            distances += cdist(numbers, records[0], "cityblock")
        if categories.shape[1]:
            distances += cdist(categories, records[1], "hamming") * categories.shape[1]
        found.append(distances.min(1))
    return np.concatenate(found)
