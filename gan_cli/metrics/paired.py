"""Shared by the metrics of pairs: images on the scale from 0 to 1, and the names of values of several tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]
_VALUES = 2**24  # number of values that are compared at a time


def unit(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as float64: integers of any size are divided by their maximum, floats are in [-1, 1]."""
    if np.issubdtype(images.dtype, np.integer):
        return images / np.float64(np.iinfo(images.dtype).max)
    return (images.astype(np.float64) + 1) / 2


def compared(
    made: np.ndarray, wanted: np.ndarray, function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """One value for each pair of images, ``[n]``.

    Args:
        made: images ``[n, h, w, c]``: integers, or floats in [-1, 1].
        wanted: the images that ``made`` should equal, in the same format.
        function: computes the values from images in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if made.shape != wanted.shape:
        raise ValueError(f"the images have the shape {made.shape}, but their counterparts {wanted.shape}")
    rows = max(_VALUES // max(made[0].size, 1), 1) if len(made) else 1

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, len(made), rows):
            yield function(unit(made[start : start + rows]), unit(wanted[start : start + rows]))

    return np.concatenate([np.zeros(0), *parts()])


def by_task(pairs: Pairs, values: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]) -> dict[str, float]:
    """The values of all tasks: without a suffix for the first task, with the suffix ``_<task>`` for the others.

    Args:
        pairs: mapping from names of tasks to pairs of arrays, ``made`` and ``wanted``.
        values: computes the values of one task from its arrays, by name.
    """
    found: dict[str, float] = {}
    for i, (task, (made, wanted)) in enumerate(pairs.items()):
        found |= {f"{name}_{task}" if i else name: value for name, value in values(made, wanted).items()}
    return found
