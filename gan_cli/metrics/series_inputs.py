"""The inputs of metrics of series: windows in the units of the data, in the order of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.series.feature import Series
from gan_cli.metrics.series_statistics import in_time_order
from gan_cli.types import Feature

SERIES = ("fake_series", "real_series", "held_out_series", "test_series", "series_range", "series_returns")
LACKING = {
    **dict.fromkeys(SERIES, "windows of a series, but {name} has none. Use dataset=stocks, or another metric"),
    "held_out_series": "held-out windows of a series, but {name} has none. Use dataset=stocks, or another metric",
}


def available(data: Dataset) -> dict[str, bool]:
    """Whether a data set provides each input of metrics of series."""
    series = isinstance(data.feature, Series)
    return dict.fromkeys(SERIES, series) | {"held_out_series": series and data.held_out is not None}


def of_data(data: Dataset, most: int) -> dict[str, Any]:
    """The inputs that do not depend on samples. Empty if the data are no series.

    Args:
        data: the data set.
        most: largest number of windows of each kind; of more windows, evenly spaced ones are taken.
    """
    feature = data.feature
    if not isinstance(feature, Series):
        return {}
    training = data.take(np.linspace(0, data.size - 1, min(data.size, most)).astype(int))[data.main]
    found: dict[str, Any] = {"real_series": in_time_order(training)}
    if data.held_out is not None:
        found["held_out_series"] = in_time_order(data.held_out[data.main][:most])
    found["test_series"] = found.get("held_out_series", found["real_series"])
    ends = [training.min((0, 1)), training.max((0, 1))]
    if feature.bounded:  # the range that networks see, e.g. [0, 1] for sines, which reach only a part of it
        ends = [np.asarray(feature.decode(jnp.full(feature.columns, end))) for end in (-1.0, 1.0)]
    return found | {"series_range": np.stack(ends).astype(np.float64), "series_returns": feature.returns}


def at_least(steps: int) -> Callable[[Feature, int | None], str | None]:
    """The function ``Metric.cannot`` of a metric that needs windows of so many time steps."""

    def cannot(feature: Feature, features: int | None) -> str | None:
        if isinstance(feature, Series) and feature.length < steps:
            return f"windows of at least {steps} time steps. Increase dataset.length"
        return None

    return cannot
