"""The tables of rows of tables: Adult, German credit, and mixtures of Gaussians whose density is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from evaluations import Evaluation, Row, Size, Table
from scipy.stats import t as student

from gan_cli.data.dataset import Dataset
from gan_cli.data.table import adult, german_credit, simulated
from gan_cli.data.tables import feature
from gan_cli.metrics.closest_record import share
from gan_cli.metrics.column_shapes import column_shapes
from gan_cli.metrics.copies import shares_of_copies
from gan_cli.metrics.log_density import log_density
from gan_cli.metrics.pair_trends import mean_pair_distance
from gan_cli.metrics.table_baselines import Baseline, baselines
from gan_cli.metrics.table_classifiers import compared
from gan_cli.metrics.tables import Columns
from gan_cli.metrics.two_sample_auc import area

_CLASSIFIERS = 3  # classifiers of the two-sample test, which differ in their halves


class _Rows(NamedTuple):
    """The training and held-out rows of a labelled table, as columns."""

    training: Columns
    held_out: Columns
    label: str

    @classmethod
    def of(cls, data: Dataset) -> _Rows:
        rows = data.feature
        assert isinstance(rows, feature.Table) and rows.label is not None
        return cls(data.columns["training"], data.columns["held_out"], rows.columns[rows.label].name)


def _figures(rows: _Rows, fake: Columns, training: Columns | None = None) -> dict[str, float]:
    """The values of generated rows.

    Args:
        rows: the real rows.
        fake: the generated rows.
        training: the training rows for the values that compare with them. With None, those of ``rows``.
    """
    seen = rows.training if training is None else training
    learnt = compared(fake, seen, rows.held_out, rows.label)
    tested = [area(rows.held_out, fake, seed) for seed in range(_CLASSIFIERS)]
    copies, unseen = shares_of_copies(seen, fake, rows.held_out)
    return {
        "tstr_f1": learnt["tstr_f1"],
        "tstr_auc": learnt["tstr_auc"],
        "trtr_auc": learnt["trtr_auc"],
        "auc_loss": learnt["trtr_auc"] - learnt["tstr_auc"],
        "two_sample_auc": float(np.mean(tested)),
        "pair_tvd": mean_pair_distance(rows.held_out, fake),
        "column_shapes": column_shapes().function(fake_table=fake, training_table=seen)["column_shapes"],
        "copies": copies,
        "copies_held_out": unseen,
        "closest_record_share": share(fake, seen, rows.held_out),
    }


def _trivial(rows: _Rows, seed: int = 0) -> dict[str, dict[str, float]]:
    """The values of the trivial generators, by the name of the row."""

    def values(one: Baseline) -> dict[str, float]:
        return _figures(rows, one.fake, one.training)

    return {name: values(one) for name, one in baselines(rows.training, rows.label, seed).items()}


# ------------------------------------------------------------------------------------------------- Adult

_METHOD = (
    "the four classifiers of Xu et al. 2019, gradient boosting for the two-sample test, and held-out rows for the "
    "distances"
)


@functools.cache
def _adult() -> _Rows:
    return _Rows.of(adult())


ADULT = Table(
    "Generators of the table Adult (UCI's split), with the F1 score of Xu et al. 2019 in brackets",
    [
        Row("experiment=table", ("experiment=table",), own_length=True),
        Row("experiment=ctgan", ("experiment=ctgan",), {"tstr_f1": "0.601"}, own_length=True),
        Row("experiment=tvae", ("experiment=tvae",), {"tstr_f1": "0.626"}, own_length=True),
    ],
    (
        "tstr_f1",
        "tstr_auc",
        "two_sample_auc",
        "pair_tvd",
        "column_shapes",
        "copies",
        "copies_held_out",
        "closest_record_share",
    ),
    32_561,
    lambda: Evaluation(_METHOD, lambda samples: _figures(_adult(), samples)),
    lambda n: _trivial(_adult()),
    {"quick": Size((), 1), "full": Size((), 3)},
)

# ------------------------------------------------------------------------------------------- German credit

_SPLITS = 10


@functools.cache
def _credit(split: int) -> _Rows:
    return _Rows.of(german_credit(seed=split))


def _of_split(run: Any, samples: int) -> tuple[int, Columns]:
    """A pair: the number of the split of a run, and its samples, as many as its training rows."""
    config = json.loads((run.directory / "run.json").read_text())["config"]
    split = int(config["dataset"]["seed"])
    return split, run.sample(len(next(iter(_credit(split).training.values()))))


def _credit_references(n: int) -> dict[str, dict[str, float]]:
    """The means of the trivial generators over the splits."""
    each = [_trivial(_credit(split), split) for split in range(_SPLITS)]
    return {name: _summary([one[name] for one in each]) for name in each[0]}


def _summary(splits: list[Mapping[str, float]]) -> dict[str, float]:
    """The means over the splits, and the 95 % interval of the mean loss of AUC by Student's distribution.

    The splits overlap, so the interval is narrower than one of independent data would be.
    """
    means = {name: float(np.mean([one[name] for one in splits])) for name in splits[0]}
    losses = np.array([one["auc_loss"] for one in splits])
    quantile = float(student.ppf(0.975, len(losses) - 1))
    half = quantile * losses.std(ddof=1) / len(losses) ** 0.5
    return means | {"auc_loss_low": means["auc_loss"] - half, "auc_loss_high": means["auc_loss"] + half}


CREDIT = Table(
    f"Generators of the table German credit, means over {_SPLITS} splits, which overlap, into 800 training and "
    "200 held-out rows",
    [
        Row(f"split {split}", ("experiment=credit", f"dataset.seed={split}"), own_length=True)
        for split in range(_SPLITS)
    ],
    (
        "tstr_auc",
        "trtr_auc",
        "auc_loss",
        "auc_loss_low",
        "auc_loss_high",
        "two_sample_auc",
        "pair_tvd",
        "copies",
        "copies_held_out",
        "closest_record_share",
    ),
    800,
    lambda: Evaluation(_METHOD, lambda found: _figures(_credit(found[0]), found[1]), _of_split),
    _credit_references,
    {"quick": Size((), 1), "full": Size((), 3)},
    summary=("experiment=credit", _summary),
)

# ------------------------------------------------------------------------------------- known mixtures

_KINDS = ("grid", "ring", "turned", "cells")
_MIXTURES = 10_000  # training rows, and samples
# Xu et al. 2019, as published in the README of SDGym of 2020: the likelihoods of samples and of test rows.
_PUBLISHED = {
    "CTGAN, published": {"grid": (-5.63, -3.69), "ring": (-3.43, -2.19)},
    "TVAE, published": {"grid": (-2.86, -11.26), "ring": (-1.68, -1.79)},
}


def _density(kind: str, fake: Columns) -> dict[str, float]:
    modes = _simulated(kind).modes
    points = np.stack([fake["x"], fake["y"]], axis=1)
    return log_density().function(fake_examples=points, known_modes=modes, seed=0)


@functools.cache
def _simulated(kind: str) -> Dataset:
    return simulated(kind=kind, size=_MIXTURES)  # type: ignore[arg-type]  # one of the names of ``Simulated``


def _of_kind(run: Any, samples: int) -> tuple[str, Columns]:
    """A pair: the kind of the mixture of a run, and its samples."""
    config = json.loads((run.directory / "run.json").read_text())["config"]
    return config["dataset"]["kind"], run.sample(samples)


def _mixture_references(n: int) -> dict[str, dict[str, float]]:
    found = {}
    for kind in _KINDS:
        data = _simulated(kind)
        rows = data.feature
        assert isinstance(rows, feature.Table) and data.held_out is not None
        training = rows.restore(data.arrays["x"])
        trivial = {"held-out rows": rows.restore(data.held_out["x"])}
        trivial |= {name: one.fake for name, one in baselines(training, None).items() if name != "real rows"}
        found |= {f"{kind}: {name}": _density(kind, fake) for name, fake in trivial.items()}
        for name, published in _PUBLISHED.items():
            if kind in published:
                values = dict(zip(("log_density", "log_density_test"), published[kind], strict=True))
                found[f"{kind}: {name}"] = values
    return found


MIXTURES = Table(
    "Generators of mixtures of Gaussians with 10,000 training rows: mean log densities in nats",
    [
        Row(f"{kind}: experiment=simulated", ("experiment=simulated", f"dataset.kind={kind}"), own_length=True)
        for kind in _KINDS
    ],
    ("log_density", "log_density_test", "log_density_optimum"),
    _MIXTURES,
    lambda: Evaluation("the known density, and mixtures fitted to the samples", lambda f: _density(*f), _of_kind),
    _mixture_references,
    {"quick": Size((), 1), "full": Size((), 3)},
)

TABLES = {"adult": ADULT, "credit": CREDIT, "mixtures": MIXTURES}
GROUPS: dict[str, tuple[str, ...]] = {"tables": tuple(TABLES)}
