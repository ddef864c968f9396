"""Metrics: one file each, a function of its options that returns a ``Metric``.

A metric names what it reads as the parameters of its function, and ``gan_cli.metrics.evaluator`` passes these in:

    fake, real, held_out        features ``[n, f]``, float32, of samples, of the reference, of data never trained on
    fake_logits                 logits ``[n, classes]`` of the samples, where the features come with logits
    fake_classes, real_classes  classes ``[n]``, where the network of the features predicts the classes of the data
    fake_points, known_modes    points ``[n, features]`` and ``Modes``, where the data have known modes
    seed                        of the random numbers that a metric draws

The order of the rows is random. Keyword-only parameters are a user's options.
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
    """A figure of merit, or several that are computed together.

    Attributes:
        function: computes the figures by name; its parameters are what it reads (see above).
        figures: the names of the figures, each with the direction that is better.
        minimum: the fewest samples, and the fewest examples of the reference, that it is defined for.
    """

    function: Callable[..., dict[str, float]]
    figures: Mapping[str, Direction]
    minimum: int = 2

    @property
    def needs(self) -> frozenset[str]:
        """The names of what it reads."""
        return frozenset(inspect.signature(self.function).parameters)

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, float]:
        return self.function(*arguments, **named)


def better(new: float, old: float, direction: Direction) -> bool:
    """Whether ``new`` is better than ``old``: any number is better than NaN, and NaN is better than nothing."""
    if new != new or old != old:
        return new == new
    return new > old if direction == HIGHER else new < old
