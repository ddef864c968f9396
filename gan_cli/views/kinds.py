"""The view of each kind of feature: how its examples are drawn.

``view`` chooses by the class of the feature. A module that defines a kind of feature registers its view with
``view.register``. Kinds without a view of their own are drawn as a matrix of values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gan_cli.data import features
from gan_cli.types import Feature
from gan_cli.views import POINTS, SIDE, pictures


@dataclass(frozen=True)
class View:
    """How the examples of a kind of feature are drawn. All functions take examples as networks see them.

    Attributes:
        noun: the plural of what a picture shows, e.g. "images".
        count: the number of examples that a picture shows.
        picture: ``(samples, real) -> picture`` of samples, over real examples if ``behind`` is not 0.
        compared: ``(real, samples) -> picture`` of real examples and of samples, e.g. one half each.
        pairs: ``(above, below) -> picture`` of pairs of examples, e.g. of inputs above their reconstructions.
        behind: the number of real examples that ``picture`` draws behind the samples.
        write: ``(path, samples)``, writes the samples to a file beside the picture ``path``, or None.
        one: ``(stored example) -> picture`` of a single example, or None if it has none. ``gan-sample`` then writes
            no folder of pictures, and draws no rows and walks of single examples.
    """

    noun: str
    count: int
    picture: Callable[[np.ndarray, np.ndarray | None], Image.Image]
    compared: Callable[[np.ndarray, np.ndarray], Image.Image]
    pairs: Callable[[np.ndarray, np.ndarray], Image.Image]
    behind: int = 0
    write: Callable[[Path, np.ndarray], None] | None = None
    one: Callable[[np.ndarray], Image.Image] | None = None


@functools.singledispatch
def view(feature: Feature) -> View:
    """The view of a feature. By default, each example is a row of a matrix, and brighter means larger."""

    def matrix(samples: np.ndarray, real: np.ndarray | None = None) -> Image.Image:
        return pictures.matrix(samples.reshape(len(samples), -1))

    return View(
        noun=feature.noun,
        count=SIDE**2,
        picture=matrix,
        compared=lambda real, samples: matrix(np.concatenate([real, samples])),
        pairs=lambda above, below: matrix(np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])),
    )


@view.register
def _(feature: features.Image) -> View:
    return View(
        noun="images",
        count=SIDE**2,
        picture=lambda samples, real: pictures.grid(samples),
        compared=lambda real, samples: pictures.grid(np.concatenate([real, samples])),
        pairs=pictures.pairs,
        one=pictures.single,
    )


@view.register
def _(feature: features.Vector) -> View:
    def scatter(samples: np.ndarray, real: np.ndarray | None) -> Image.Image:
        return pictures.scatter(samples, samples if real is None else real)

    return View(
        noun="points",
        count=POINTS,
        picture=scatter,
        compared=lambda real, samples: pictures.scatter(samples, real),
        pairs=lambda above, below: pictures.scatter(below, above),
        behind=POINTS,
        write=lambda path, samples: pictures.write_points(path.with_suffix(".npz"), samples),
    )


def write_neighbours(folder: Path, feature: Feature, samples: np.ndarray, neighbours: np.ndarray) -> None:
    """Write the picture ``neighbours.png``, which shows each sample with its nearest training example.

    Args:
        folder: the folder for the picture.
        feature: the feature of the samples.
        samples: stored samples ``[n, *stored_shape]``.
        neighbours: the nearest training example of each sample, of the same shape.
    """
    above, below = (np.asarray(feature.encode(examples)) for examples in (samples, neighbours))
    pictures.write(folder / "neighbours.png", view(feature).pairs(above, below))
