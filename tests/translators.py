"""Small networks of image translation, and data sets of random images, for the tests of the games."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label
from gan_cli.games.cut import CUT
from gan_cli.games.cyclegan import CycleGAN
from gan_cli.games.pix2pix import Pix2Pix
from gan_cli.losses import lsgan
from gan_cli.models import TranslationModel
from gan_cli.models.conv import conv
from gan_cli.types import Game

GAMES = {"pix2pix": Pix2Pix, "cyclegan": CycleGAN, "cut": CUT}


class Generator(nnx.Module):
    """Two 3x3 convolutions, with dropout between them. Layer 0 is the input, and layer 1 the hidden layer."""

    couples_batch = False
    multiple = 2

    def __init__(self, source: Any, target: Any, rngs: nnx.Rngs, *, width: int = 4, dropout: float = 0.0):
        init = nnx.initializers.normal(0.2)
        self.target, self.dropout = target, dropout
        self.first = nnx.Param(init(rngs.params(), (3, 3, source.shape[-1], width)))
        self.last = nnx.Param(init(rngs.params(), (3, 3, width, target.shape[-1])))

    def maps(self, x: jax.Array, layers: tuple[int, ...], *, train: bool, key: jax.Array) -> list[jax.Array]:
        found = {0: x, 1: jax.nn.relu(conv(x, self.first[...].astype(x.dtype), 1))}
        return [found[layer] for layer in layers]

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        (y,) = self.maps(x, (1,), train=train, key=key)
        if self.dropout and train:
            y = jax.numpy.where(jax.random.bernoulli(key, 1 - self.dropout, y.shape), y / (1 - self.dropout), 0)
        return self.target.head(conv(y, self.last[...].astype(x.dtype), 1))


class Discriminator(nnx.Module):
    """A convolution of stride 2 and a 1x1 convolution: a logit for each patch."""

    couples_batch = False

    def __init__(self, feature: Any, rngs: nnx.Rngs, *, width: int = 4):
        init = nnx.initializers.normal(0.2)
        self.first = nnx.Param(init(rngs.params(), (4, 4, feature.shape[-1], width)))
        self.last = nnx.Param(init(rngs.params(), (1, 1, width, 1)))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        hidden = jax.nn.leaky_relu(conv(x, self.first[...].astype(x.dtype), 2), 0.2)
        return conv(hidden, self.last[...].astype(x.dtype), 1)[..., 0]


def small(channels: tuple[int, int] = (1, 1), **options: Any) -> tuple[dict[str, Image], TranslationModel]:
    """The Spec of 8x8 images, and a model."""
    spec = {name: Image(8, 8, count) for name, count in zip("ab", channels, strict=True)}

    def generator(*arguments: Any) -> Generator:
        return Generator(*arguments, **options)

    return spec, TranslationModel(generator, Discriminator)


def game(
    name: str, channels: tuple[int, int] = (1, 1), loss: Any = None, dropout: float = 0.0, **options: Any
) -> Game:
    """A game of translation with small networks."""
    parts = {key: options.pop(key, {}) for key in ("penalties", "augments")}
    if name == "cut":
        options = {"layers": (0, 1), "patches": 16} | options
    spec, model = small(channels, dropout=dropout)
    return GAMES[name](spec, model, loss or lsgan(), *parts.values(), "float32", **options)


def batch(n: int = 3, channels: tuple[int, int] = (1, 1), seed: int = 0) -> dict[str, jax.Array]:
    """A batch of ``n`` random images of each domain."""
    rng = np.random.default_rng(seed)
    return {
        name: jax.numpy.asarray(rng.uniform(-1, 1, (n, 8, 8, count)), np.float32)
        for name, count in zip("ab", channels, strict=True)
    }


def random_pairs(*, size: int = 24) -> Dataset:
    """Labelled pairs of random 8x8 images, a grey and its negative."""
    a = np.random.default_rng(0).integers(0, 256, (size, 8, 8, 1), np.uint8)
    label = np.arange(size, dtype=np.int32) % 3
    spec = {"a": Image(8, 8, 1), "b": Image(8, 8, 1), "label": Label(3)}
    return Dataset("random pairs", spec, {"a": a, "b": 255 - a, "label": label}, {"a": a[:4], "b": 255 - a[:4]})


def random_domains(*, size: int = 24) -> Dataset:
    """Two domains of random 8x8 images, one brighter than the other."""
    a = np.random.default_rng(0).integers(0, 128, (size, 8, 8, 1), np.uint8)
    b = np.random.default_rng(1).integers(128, 256, (size + 3, 8, 8, 1), np.uint8)
    spec = {"a": Image(8, 8, 1), "b": Image(8, 8, 1)}
    return Dataset(
        "random domains", spec, {"a": a, "b": b}, {"a": a[:4], "b": b[:5]}, domain_of={"a": "a", "b": "b"}
    )
