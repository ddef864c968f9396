"""Features: the named parts of an example, e.g. an image and its label.

Each kind of feature is a frozen dataclass. ``run.json`` stores the kind and its fields, so that the networks of a
run can be built again without the data. The protocol of a feature is the base class ``gan_cli.types.Feature``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.scaling import denormalise, normalise
from gan_cli.types import ArrayT, Feature, Spec

# The modules of the features of this package that another module defines, by the name of the class.
_MODULES = {
    "Series": "gan_cli.data.series.feature",
    "Table": "gan_cli.data.tables.feature",
    "Tokens": "gan_cli.data.text.feature",
    "Video": "gan_cli.data.video.feature",
}


@dataclass(frozen=True)
class Image(Feature):
    """An image: uint8 or uint16 in files and in memory, float32 in [-1, 1] in networks.

    Attributes:
        height: number of rows.
        width: number of columns.
        channels: number of channels: grey (1), RGB (3), RGB with the opacity (4), or any other number.
        bits: bits per stored value, 8 or 16.
        load: height and width of the stored training images. In training, a random crop of ``height`` x ``width``
            is cut from each. Everywhere else, the crop is the centre. With None, images are stored without margins.
    """

    height: int
    width: int
    channels: int
    bits: int = 8
    load: tuple[int, int] | None = None
    bounds = (-1.0, 1.0)
    noun = "images"
    values_name = "pixels"
    extractor = "classifier"
    public = True

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return self.height, self.width, self.channels

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return (*(self.load or (self.height, self.width)), self.channels)

    @property
    def dtype(self) -> Any:
        return np.uint16 if self.bits == 16 else np.uint8

    def encode(self, stored: ArrayT) -> ArrayT:
        return normalise(self.centre(stored))

    def centre(self, stored: ArrayT) -> ArrayT:
        """The centre of stored images with margins. Images without margins, or of another size, are unchanged."""
        if self.load is None or stored.shape[-3:] != self.stored_shape:
            return stored
        top, left = (self.load[0] - self.height) // 2, (self.load[1] - self.width) // 2
        return stored[..., top : top + self.height, left : left + self.width, :]

    def decode(self, x: jax.Array) -> jax.Array:
        return denormalise(x, self.bits)

    def head(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
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
    values_name = "coordinates"
    public = True

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
    public = True


@dataclass(frozen=True)
class Number(Feature):
    """A real number that belongs to an example, e.g. its log-likelihood."""

    shape = ()
    noun = "numbers"


@dataclass(frozen=True)
class Raw(Feature):
    """The raw output of a network that makes a feature, before the output activation, e.g. logits of pixels.

    Attributes:
        feature: the feature.
    """

    feature: Feature

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return self.feature.shape

    @property
    def noun(self) -> str:  # type: ignore[override]  # a property of an immutable feature
        return self.feature.noun

    def widened(self, channels: int) -> Raw:
        return Raw(self.feature.widened(channels))


def spec_of(x: Feature, classes: int | None = None) -> Spec:
    """The Spec of examples ``x`` and, if ``classes`` is not None, of their labels."""
    return {"x": x} | ({} if classes is None else {"label": Label(classes)})


def feature_of(shape: Sequence[int]) -> Feature | None:
    """The kind of feature that arrays ``[n, *shape]`` hold: images or vectors. None for all other shapes."""
    if len(shape) == 3:
        height, width, channels = shape
        return Image(height, width, channels)
    return Vector(*shape) if len(shape) == 1 else None


def classes_of(spec: Spec) -> int | None:
    """The number of classes, or None if the examples have no labels."""
    label = spec.get("label")
    return label.classes if isinstance(label, Label) else None


def described(spec: Spec) -> dict[str, Any]:
    """The features of a Spec as a dictionary for ``run.json``: for each, its kind and its fields.

    For the features of this package, the kind is the name of the class. For all others, it also names the module.
    """

    def kind(feature: Feature) -> str:
        module, name = type(feature).__module__, type(feature).__qualname__
        return name if module == _MODULES.get(name, __name__) else f"{module}.{name}"

    return {name: {"kind": kind(one), **_stated(one)} for name, one in spec.items()}


def _stated(value: Any) -> Any:
    """The fields of a dataclass as a dictionary, at any depth of tuples. Other values are unchanged.

    Fields with default values are left out, so that earlier versions and later fields agree.
    """
    if isinstance(value, tuple):
        return tuple(map(_stated, value))
    if not dataclasses.is_dataclass(value):
        return value
    fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _stated(own) for field, own in fields if own != field.default}


def from_description(stated: Any, modules: Sequence[str] = ()) -> Spec:
    """The Spec that ``described`` has written, or that an earlier version of the program has written.

    Earlier versions wrote the entries ``shape``, ``low``, ``high`` and ``num_classes`` of images and points.

    Args:
        stated: the contents of the entry ``spec`` of ``run.json``.
        modules: the user's Python modules, which may define kinds of features.

    Raises:
        ValueError: the description is damaged, or names a class that is not a feature of this module or of
            ``modules``.
    """
    try:
        if "shape" in stated:
            x = feature_of([int(side) for side in stated["shape"]])
            if x is None or min(x.shape) < 1:
                raise ValueError("the shape is not that of images or points")
            classes = stated["num_classes"]
            return spec_of(x, None if classes is None else int(classes))
        return {str(name): _feature(dict(one), modules) for name, one in stated.items()}
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"the description of the examples is damaged: {error}") from error


def _feature(fields: dict[str, Any], modules: Sequence[str]) -> Feature:
    module, _, name = str(fields.pop("kind")).rpartition(".")
    if module and module not in modules:
        raise ValueError(f"the module {module} of the feature {name} is not among the modules of the user")
    made = getattr(importlib.import_module(module or _MODULES.get(name, __name__)), name)
    if not (isinstance(made, type) and issubclass(made, Feature)):
        raise ValueError(f"{name} is not a kind of feature")
    for key, value in fields.items():
        if isinstance(value, list):  # JSON has no tuples
            fields[key] = tuple(value)
    feature = made(**fields)
    if min(feature.shape, default=1) < 1:
        raise ValueError(f"the shape {feature.shape} is empty")
    return feature
