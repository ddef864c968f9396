"""A small table for tests of games and samplers: one number and three columns of categories."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Label
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import Table
from gan_cli.types import PositiveInt


def toy_table(*, size: PositiveInt = 400, labelled: bool = True) -> Dataset:
    """Rows with a number, a rare plan, a flag with missing values, and the label, which determines the number.

    Args:
        size: number of rows.
        labelled: whether the last column is the label.
    """
    rng = np.random.default_rng(0)
    label = rng.choice(["bad", "good"], size, p=(0.2, 0.8)).astype(object)
    amount = np.where(label == "good", 2.0, -2.0) + rng.standard_normal(size)
    plan = rng.choice(["a", "b", "c"], size, p=(0.85, 0.1, 0.05)).astype(object)
    flag = np.where(rng.random(size) < 0.1, None, np.where(plan == "a", "yes", "no"))
    values = {"amount": amount, "plan": plan, "flag": flag, "credit": label}
    modes = ((float(amount.mean()), float(amount.std())),)
    columns = (
        Column("amount", "continuous", modes=modes),
        Column("plan", "categorical", ("a", "b", "c"), frequencies=shares(plan, ["a", "b", "c"])),
        Column("flag", "boolean", ("no", "yes"), True, frequencies=shares(flag, ["no", "yes", None])),
        Column("credit", "categorical", ("bad", "good"), frequencies=shares(label, ["bad", "good"])),
    )
    table = Table(columns, 3 if labelled else None, rows=size)
    examples, spec = {"x": table.store(values)}, {"x": table}
    if labelled:
        spec["label"], examples["label"] = Label(2), (label == "good").astype(np.int32)
    return Dataset("toy_table", spec, examples, class_names=("bad", "good") if labelled else ())


def shares(values, categories):
    """The share of each category."""
    return tuple(float(np.mean([value == one for value in values])) for one in categories)
