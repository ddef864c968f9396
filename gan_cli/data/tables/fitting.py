"""Fits the representation of columns to training rows: categories, ranges, spikes, quantiles and modes."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from scipy.special import ndtr

from gan_cli.data.layout import natural
from gan_cli.data.tables.columns import Column
from gan_cli.errors import UserError
from gan_cli.types import Normalisation

_SPIKE = 0.03  # least share of the rows with a single value, from which on the value is an entry of the choice
_SPIKES = 20  # largest number of spikes
_POINTS = 256  # largest number of points of a quantile function
_EXTREME = 3.5  # normal score of the outermost points between the smallest and the largest value
_MODES = 10  # largest number of modes (Xu et al. 2019, section 4.2)
_WEIGHT = 0.005  # least weight of a mode, as in the code of Xu et al. 2019
_MIXED = 20_000  # number of values to which a mixture is fitted
_UNITS = (86_400.0, 3_600.0, 60.0)  # seconds: the units of which all values of a date may be multiples


def fit(column: Column, values: np.ndarray, normalisation: Normalisation = "quantile", seed: int = 0) -> Column:
    """The column with categories, range and representation that fit the values of the training rows.

    Categories, ``low`` and ``high`` that the column already has, e.g. from a schema, are kept.

    Args:
        column: the column, with its kind and format.
        values: values ``[n]`` of the training rows: float64 with NaN, or strings with None, for missing values.
        normalisation: ``quantile`` represents numbers by normal scores, and values that many rows share by entries
            of the choice. ``modes`` uses the mode-specific normalisation of Xu et al. 2019, and ``standard``
            subtracts the mean and divides by the standard deviation. ``range`` returns the column unchanged:
            ``gan_cli.data.tables.public`` has represented it without the rows.
        seed: seed of the mixtures and of the random choice of modes.

    Raises:
        UserError: ``modes`` is chosen without scikit-learn, or ``range`` without a schema.
    """
    if normalisation == "range":
        if column.numeric and not column.modes:
            raise UserError("dataset.normalisation=range: needs a schema, and these data have none. Set standard.")
        return column
    if not column.numeric:
        fitted = _fit_categories(column, values)
    else:
        missing = np.isnan(values)
        known = values[~missing]
        if not len(known):  # the training rows have missing values only
            known = np.array([column.low if column.low is not None else 0.0])
        low = float(known.min()) if column.low is None else column.low
        high = float(known.max()) if column.high is None else column.high
        fitted = dataclasses.replace(column, missing=bool(missing.any()), low=low, high=high)
        if column.kind == "date":
            unit = next((unit for unit in _UNITS if not (known % unit).any()), 1.0)
            fitted = dataclasses.replace(fitted, unit=unit)
        fits = {"quantile": _fit_quantiles, "modes": _fit_modes, "standard": _fit_standard}
        fitted = fits[normalisation](fitted, known, seed) if low < high else _constant(fitted, known)
    if not fitted.width:
        return fitted
    _, choice = fitted.store(values, np.random.default_rng(seed))
    assert choice is not None
    shares = np.bincount(choice, minlength=fitted.width) / len(values)
    return dataclasses.replace(fitted, frequencies=tuple(_rounded(shares)))


def _fit_categories(column: Column, values: np.ndarray) -> Column:
    found = {value for value in values if value is not None}
    order = sorted(found, key=natural)
    if column.kind == "boolean" and {one.lower() for one in found} == {"ja", "nein"}:
        order.reverse()  # the negative value comes first, as in all other pairs in the order of the alphabet
    categories = column.categories or tuple(order)
    return dataclasses.replace(column, categories=categories, missing=bool((values == None).any()))  # noqa: E711


def _constant(column: Column, values: np.ndarray) -> Column:
    return dataclasses.replace(column, spikes=(float(values[0]),))


def _fit_standard(column: Column, values: np.ndarray, seed: int) -> Column:
    mean, std = float(values.mean()), float(values.std())
    return dataclasses.replace(column, modes=((mean, std),)) if std else _constant(column, values)


def _fit_quantiles(column: Column, values: np.ndarray, seed: int) -> Column:
    distinct, counts = np.unique(values, return_counts=True)
    frequent = np.flatnonzero(counts >= _SPIKE * len(values))
    frequent = frequent[np.argsort(-counts[frequent], kind="stable")][:_SPIKES]
    if len(distinct) - len(frequent) == 1 and len(distinct) <= _SPIKES:  # a scalar for a single value says nothing
        frequent = np.arange(len(distinct))
    spikes = np.sort(distinct[frequent])
    column = dataclasses.replace(column, spikes=tuple(spikes.tolist()))
    rest = ~np.isin(distinct, spikes)
    if not rest.any():
        return column
    if rest.sum() <= _POINTS:
        cumulative = counts[rest].cumsum() / counts[rest].sum()
        points = distinct[rest].tolist()
        return dataclasses.replace(column, points=tuple(points), cumulative=tuple(_exact(cumulative)), steps=True)
    # Half of the points lie at equal shares of the rows, and half at equal normal scores, which resolve the tails.
    scores = np.linspace(-_EXTREME, _EXTREME, _POINTS // 2)
    shares = np.unique(np.concatenate([np.linspace(0, 1, _POINTS // 2), ndtr(scores)]).round(8))
    points = np.quantile(values[~np.isin(values, spikes)], shares)
    digits = 0 if column.kind == "date" else column.decimals
    points = points if digits is None else points.round(digits + 2)  # more digits say nothing, and fill run.json
    return dataclasses.replace(column, points=tuple(points.tolist()), cumulative=tuple(shares.tolist()))


def _fit_modes(column: Column, values: np.ndarray, seed: int) -> Column:
    """The modes of a mixture of Gaussians whose number the mixture finds itself (Xu et al. 2019, section 4.2)."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import BayesianGaussianMixture
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise UserError(
            "dataset.normalisation=modes: needs scikit-learn, which is not installed. Run: "
            "pip install 'gan_cli[table]'"
        ) from error
    std = float(values.std())
    if not std:
        return _constant(column, values)
    centre = float(values.mean())
    sample = values
    if len(values) > _MIXED:
        sample = np.random.default_rng(seed).choice(values, _MIXED, replace=False)
    mixture = BayesianGaussianMixture(
        n_components=min(_MODES, len(np.unique(sample))),
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=0.001,
        random_state=seed,
    )
    # The matrices are small: with several threads, a busy machine takes thirty times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations, as in the code of Xu et al. 2019
        mixture.fit(((sample - centre) / std)[:, None])
    kept = mixture.weights_ > _WEIGHT
    means = centre + std * mixture.means_[kept, 0]
    stds = std * np.sqrt(mixture.covariances_[kept, 0, 0])
    modes = tuple(zip(means.tolist(), stds.tolist(), strict=True))
    return dataclasses.replace(column, modes=modes, frequencies=tuple(mixture.weights_[kept].tolist()))


def _rounded(shares: np.ndarray) -> list[float]:
    return [float(f"{share:.6g}") for share in shares]


def _exact(cumulative: np.ndarray) -> list[float]:
    """Cumulative shares with few digits, the last of which is 1."""
    return [*_rounded(cumulative[:-1]), 1.0]
