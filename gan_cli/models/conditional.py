"""Conditional networks: a generator that draws the class it is asked for, and a discriminator that minds it.

``model.conditional`` puts them around the networks of any family. The generator takes the class as a one-hot vector
beside its latents; how the discriminator minds it is what the kinds differ in.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models import Model
from gan_cli.models.layers import Linear, dense
from gan_cli.types import Spec

_INIT = nnx.initializers.glorot_uniform()


class Generator(nnx.Module):
    """Latents and labels ``[batch]`` -> ``[batch, *spec.shape]`` (Mirza and Osindero 2014, section 3.2)."""

    def __init__(self, model: Model, spec: Spec, rngs: nnx.Rngs):
        assert spec.num_classes is not None
        self.classes = spec.num_classes
        self.network = model.generator(spec, model.latent_dim + self.classes, rngs)

    @property
    def entry(self) -> Linear:
        return self.network.entry

    def early(self, z: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network.early(self._beside(z, labels), train=train, key=key)

    def __call__(self, z: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network(self._beside(z, labels), train=train, key=key)

    def _beside(self, z: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.concatenate([z, jax.nn.one_hot(labels, self.classes, dtype=z.dtype)], axis=1)


class Concat(nnx.Module):
    """Examples and labels -> logits: the class goes in beside the example (Mirza and Osindero 2014).

    Beside an image as one more channel, learned a class; beside a point as a one-hot vector.
    """

    def __init__(self, model: Model, spec: Spec, rngs: nnx.Rngs):
        assert spec.num_classes is not None
        self.classes = spec.num_classes
        *sides, channels = spec.shape
        more = 1 if spec.is_image else self.classes
        shape = (self.classes, *sides, 1)
        self.planes = nnx.Param(jax.random.normal(rngs.params(), shape)) if spec.is_image else None
        self.network = model.discriminator(Spec((*sides, channels + more)), rngs)
        self.couples_batch = self.network.couples_batch

    def maps(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return self.network.maps(self._beside(x, labels), train=train, key=key)

    def __call__(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network(self._beside(x, labels), train=train, key=key)

    def _beside(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        if self.planes is None:
            named = jax.nn.one_hot(labels, self.classes, dtype=x.dtype)
        else:
            named = self.planes[...][labels].astype(x.dtype)
        return jnp.concatenate([x, named], axis=-1)


class _Headed(nnx.Module):
    """A discriminator with a second last layer, which has a number for each class."""

    def __init__(self, model: Model, spec: Spec, rngs: nnx.Rngs):
        assert spec.num_classes is not None
        self.network = model.discriminator(spec, rngs)
        features, _ = self.network.out.kernel.shape
        spectral = self.network.out.u is not None
        self.head = dense(features, spec.num_classes, rngs, init=_INIT, spectral=spectral, bias=False)
        self.couples_batch = self.network.couples_batch

    def maps(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return self.network.maps(x, train=train, key=key)

    def both(self, x: jax.Array, *, train: bool, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits ``[batch]`` and the head's numbers ``[batch, classes]``."""
        features = self.network.features(x, train=train, key=key)
        return self.network.out(features, train=train)[:, 0], self.head(features, train=train)


class Projection(_Headed):
    """Examples and labels -> logits: the class's own direction in feature space is added to that of all
    (Miyato and Koyama 2018, eq. 8)."""

    def __call__(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        logits, along = self.both(x, train=train, key=key)
        return logits + jnp.take_along_axis(along, labels[:, None], axis=1)[:, 0]


class Classifying(_Headed):
    """Examples -> logits ``[batch]``, and class logits ``[batch, classes]``, which both players have a loss on
    (Odena et al. 2017, AC-GAN). It is not told the label."""

    def __call__(
        self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return self.both(x, train=train, key=key)


DISCRIMINATORS = {"concat": Concat, "projection": Projection, "acgan": Classifying}
