"""Features: the named parts of an example, e.g. an image and its label.

Each kind of feature is a frozen dataclass. ``run.json`` stores the kind and its fields, so that the networks of a
run can be built again without the data. The protocol of a feature is the base class ``gan_cli.types.Feature``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.scaling import denormalise, normalise
from gan_cli.types import Feature, Spec


@dataclass(frozen=True)
class Image(Feature):
    """An image: uint8 in files and in memory, float32 in [-1, 1] in networks, ``[height, width, channels]``.

    Attributes:
        height: number of rows.
        width: number of columns.
        channels: number of channels: grey (1), RGB (3), RGB with the opacity (4).
    """

    height: int
    width: int
    channels: int
    dtype = np.uint8
    bounds = (-1.0, 1.0)
    noun = "images"
    extractor = "classifier"

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return self.height, self.width, self.channels

    def encode(self, stored: jax.Array) -> jax.Array:
        return normalise(stored)

    def decode(self, x: jax.Array) -> jax.Array:
        return denormalise(x)

    def head(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    def widened(self, channels: int) -> Image:
        return dataclasses.replace(self, channels=channels)


@dataclass(frozen=True)
class Vector(Feature):
    """A vector of real numbers, e.g. a point in the plane or a latent vector.

    Attributes:
        features: number of values.
    """

    features: int
    noun = "points"

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return (self.features,)

    def widened(self, channels: int) -> Vector:
        return Vector(channels)


@dataclass(frozen=True)
class Label(Feature):
    """The class of an example, an int32 scalar from 0 to ``classes - 1``."""

    classes: int
    shape = ()
    dtype = np.int32
    noun = "labels"


@dataclass(frozen=True)
class Number(Feature):
    """A real number that belongs to an example, e.g. its log-likelihood."""

    shape = ()
    noun = "numbers"


def features_of(spec: Spec) -> dict[str, Feature]:
    """The features that a ``Spec`` describes: ``x`` and, for labelled data, ``label``."""
    kind = Image if spec.is_image else Vector
    return {"x": kind(*spec.shape)} | ({} if spec.num_classes is None else {"label": Label(spec.num_classes)})


def by_feature(arrays: dict[str, Any]) -> dict[str, Any]:
    """The result of ``Dataset.take`` with the names of the features in place of ``examples`` and ``labels``."""
    return {{"examples": "x", "labels": "label"}.get(name, name): array for name, array in arrays.items()}
