"""Trivial generators of tables, whose values show how good or bad a value of a metric is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gan_cli.metrics.tables import Columns, codes, is_number, rows_of, taken

_LABELS = 100  # a label of more different numbers has too few rows of each value


class Baseline(NamedTuple):
    """Rows of a trivial generator.

    Attributes:
        fake: the rows that take the place of samples.
        training: the training rows with which they are compared.
    """

    fake: Columns
    training: Columns


def baselines(training: Columns, label: str | None, seed: int = 0) -> dict[str, Baseline]:
    """The rows of four trivial generators by name, as many as training rows.

    - real rows: half of the training rows, which take the place of samples, and are compared with the other half.
    - bootstrap: training rows, drawn with replacement, which are copies.
    - independent within label: each column drawn from the training rows of the same class, independently of the
      other columns. Left out without a label.
    - independent columns: each column drawn from the training rows, independently of the other columns.

    Args:
        training: the training rows.
        label: the column that is the class of a row, or None.
        seed: seed of the random choices.
    """
    rng, n = np.random.default_rng(seed), rows_of(training)
    order = rng.permutation(n)
    found = {
        "real rows": Baseline(taken(training, order[: n // 2]), taken(training, order[n // 2 :])),
        "bootstrap": Baseline(taken(training, rng.integers(n, size=n)), training),
    }
    if label is not None and not (is_number(training[label]) and len(np.unique(training[label])) > _LABELS):
        found["independent within label"] = Baseline(_within(training, label, rng), training)
    independent = {name: values[rng.integers(n, size=n)] for name, values in training.items()}
    return found | {"independent columns": Baseline(independent, training)}


def _within(training: Columns, label: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    (code,) = codes(training[label])
    made = {name: values.copy() for name, values in training.items()}
    for one in range(code.max() + 1):
        rows = np.flatnonzero(code == one)
        for name, values in training.items():
            made[name][rows] = values[rng.choice(rows, len(rows))]
    return made
