"""Statistics of motion in clips: centroids, speeds, directions, and the distance from bouncing straight lines.

All functions of clips take stored clips ``[n, frames, height, width, channels]`` with dark values near 0. The
centroid of a frame is the mean position of its pixels, weighted with their values, so that it follows a bright
object on a dark ground. Positions are rows and columns in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_BLOCK = 256  # clips that are converted to float32 at a time
_SHARP = 0.5  # smallest change of a step at a turn, in median steps; smaller changes may be rounding
_TURNS = 0.95  # share of the real turns that lie behind the walls


class Walls(NamedTuple):
    """The inner ends of the borders at which centroids turn, ``[2]`` for rows and columns, in pixels.

    Each object has walls of its own, because its centroid is not in its centre. The walls of all lie at or below
    ``low``, or at or above ``high``.
    """

    low: np.ndarray
    high: np.ndarray


def masses_and_centroids(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values of each frame ``[n, frames]``, and its centroid ``[n, frames, 2]``, in float64.

    The centroid of a black frame is the centre of the frame.
    """
    n, frames, height, width, _ = clips.shape
    masses, centroids = np.empty((n, frames)), np.empty((n, frames, 2))
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        values = clips[part].sum(-1, dtype=np.float32)
        masses[part] = values.sum((2, 3), dtype=np.float64)
        for axis, length in enumerate((height, width)):
            profile = values.sum(3 - axis, dtype=np.float64)
            weighted = profile @ np.arange(length)
            middle = (length - 1) / 2
            centroids[part, :, axis] = np.divide(
                weighted, masses[part], out=np.full(weighted.shape, middle), where=masses[part] > 0
            )
    return masses, centroids


def speeds(centroids: np.ndarray) -> np.ndarray:
    """The speed of each clip ``[n]``: the mean distance between the centroids of successive frames, in pixels."""
    found: np.ndarray = np.linalg.norm(np.diff(centroids, axis=1), axis=2).mean(1)
    return found


def resultant(centroids: np.ndarray, multiple: int = 1) -> float:
    """The length of the mean of ``exp(i multiple angle)`` over the directions of all steps, from 0 to 1.

    Mardia and Jupp 2000, section 2.3.1. It is 0 for directions that are uniform on the circle, and 1 for equal
    directions; with ``multiple=2``, also for directions along one axis. Steps without motion have no direction, and
    count as 0.
    """
    steps = np.diff(centroids, axis=1)
    lengths = np.linalg.norm(steps, axis=2)
    angles = np.arctan2(steps[..., 0], steps[..., 1])
    return float(np.abs(np.where(lengths > 0, np.exp(1j * multiple * angles), 0).mean()))


def walls_of(centroids: np.ndarray) -> Walls:
    """The walls behind which real centroids ``[n, frames, 2]`` turn.

    A turn is a frame before and after which the centroid moves in opposite directions along an axis. 95 % of the
    turns at either end lie behind the wall. Without turns, nothing lies behind the walls.
    """
    steps = np.diff(centroids, axis=1)
    before, after = steps[:, :-1], steps[:, 1:]
    sharp = np.abs(after - before) > _SHARP * np.median(np.linalg.norm(steps, axis=2))
    turns = (before * after < 0) & sharp
    low, high = np.full(2, -np.inf), np.full(2, np.inf)
    for axis in range(2):
        places = centroids[:, 1:-1, axis]
        for upwards, ends, share in ((True, low, _TURNS), (False, high, 1 - _TURNS)):
            found = places[turns[..., axis] & ((after[..., axis] > 0) == upwards)]
            if len(found):
                ends[axis] = np.quantile(found, share)
    return Walls(low, high)


def line_residuals(centroids: np.ndarray, walls: Walls) -> np.ndarray:
    """The distance of the middle of three successive centroids from a bouncing straight line, ``[n, frames - 2]``.

    Along each axis, the residual of the positions a, b, c at constant speed is ``|b - (a + c) / 2|``. If b lies
    farther out than (a + c) / 2, a bounce may explain it: the reflection of c, or of a, at a wall at the distance
    ``|c - a| / 2`` behind b puts the three positions on a line with equal steps. The residual is then the distance
    of this wall from the nearest possible wall, if that is smaller. The result is the Euclidean norm over both
    axes, in pixels.

    Args:
        centroids: ``[n, frames, 2]``.
        walls: the walls of the real centroids.
    """
    before, middle, after = centroids[:, :-2], centroids[:, 1:-1], centroids[:, 2:]
    beyond = middle - (before + after) / 2  # positive towards the high wall
    reach = np.abs(after - before) / 2
    to_high = np.maximum(walls.high - (middle + reach), 0)
    to_low = np.maximum(middle - reach - walls.low, 0)
    bounced = np.where(beyond > 0, to_high, to_low)
    found: np.ndarray = np.linalg.norm(np.minimum(np.abs(beyond), bounced), axis=2)
    return found


def mass_variations(masses: np.ndarray) -> np.ndarray:
    """The coefficient of variation of the masses ``[n, frames]`` within each clip, ``[n]``; 0 for a black clip."""
    mean = masses.mean(1)
    found: np.ndarray = masses.std(1) / np.where(mean > 0, mean, 1)
    return found
