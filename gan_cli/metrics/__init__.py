"""Figures of merit: one file each, a metric a function of arrays.

What a metric needs it names as its positional parameters, and ``gan_cli.metrics.evaluate`` fills them in:

    fake, real, held_out        features ``[n, f]``, float32, of samples, of the reference, of data never trained on
    fake_logits                 logits ``[n, classes]`` of the samples, where the features come with some
    fake_classes, real_classes  classes ``[n]``, where the features' network names those of the data
    fake_points, known_modes    points ``[n, features]`` and ``Modes``, where the data have known modes
    seed                        of what a metric draws

Rows are in an order that says nothing about them. Keyword-only parameters are a user's options. What is returned
is figures by name, each of the type that says which way is better.
"""

from __future__ import annotations


class Lower(float):
    """A figure that is better the lower it is."""


class Higher(float):
    """A figure that is better the higher it is."""


def better(new: float, old: float) -> bool:
    """Whether the figure ``new`` beats ``old``; anything beats what is not a number, which beats nothing."""
    if new != new or old != old:
        return new == new
    return new > old if isinstance(new, Higher) else new < old
