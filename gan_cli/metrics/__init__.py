"""Metrics: one module per metric, with a function that maps the user's options to a ``Metric``.

The inputs of a metric are the parameters of its ``function``, and ``gan_cli.metrics.evaluator`` passes them by
name:

    fake, real, held_out        float32 features ``[n, f]`` of samples, reference data and held-out data
    fake_logits                 logits ``[n, classes]`` of the samples, if the feature network computes logits
    fake_classes                classes ``[n]`` of the samples, if the feature network is a classifier of the data
    real_classes                labels ``[n]`` of the reference data, if it has labels
    fake_points                 samples ``[n, features]``, if the data are points
    known_modes                 ``Modes`` of the data, if the modes are known
    seed                        seed of the random numbers that the metric draws

Rows are in random order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Direction = Literal["lower", "higher", "neither"]
LOWER: Direction = "lower"
HIGHER: Direction = "higher"
NEITHER: Direction = "neither"


class Metric(NamedTuple):
    """A metric: a function that computes one or more values, and the direction of each value.

    Attributes:
        function: returns the metric values by name. The parameters of the function are the inputs of the metric,
            which the docstring of this module lists.
        figures: for the name of each value, whether a lower or a higher value is better, or neither.
        minimum: smallest number of samples and of reference examples for which the metric is defined.
    """

    function: Callable[..., dict[str, float]]
    figures: Mapping[str, Direction]
    minimum: int = 2

    @property
    def needs(self) -> frozenset[str]:
        """The names of the inputs that the metric requires."""
        return frozenset(inspect.signature(self.function).parameters)

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, float]:
        return self.function(*arguments, **named)


def better(new: float, old: float, direction: Direction) -> bool:
    """Whether ``new`` is better than ``old``. Every number is better than NaN, and NaN is never better."""
    if new != new or old != old:
        return new == new
    return new > old if direction == HIGHER else new < old
