"""Fully connected networks for points, from PacGAN's experiments on synthetic data.

The networks follow Lin et al. 2018 (appendix on synthetic data) and the authors' code. All weights are initialised
from a normal distribution with mean 0 and standard deviation 0.02. The hidden layers of the generator use batch
normalisation and have no bias. The hidden layers of the discriminator are maxout layers (Goodfellow et al. 2013).
"""

from __future__ import annotations

from itertools import pairwise

import jax
from flax import nnx

from gan_cli.models.layers import Block, Linear, dense, each_block
from gan_cli.types import Feature, PositiveInt

_INIT = nnx.initializers.normal(0.02)


class Generator(nnx.Module):
    """PacGAN generator: ``depth`` fully connected hidden layers with batch normalisation and ReLU.

    Maps latents ``[batch, latent_dim]`` to examples ``[batch, *shape]``.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(
        self, feature: Feature, latent_dim: int, rngs: nnx.Rngs, *, width: PositiveInt = 400, depth: PositiveInt = 4
    ):
        sizes = [latent_dim] + [width] * depth
        self.blocks = nnx.List(
            Block(dense, a, b, rngs, norm="batch", activation="relu", dropout=0.0, init=_INIT)
            for a, b in pairwise(sizes)
        )
        self.out = dense(width, feature.size, rngs, init=_INIT)
        self.feature = feature
        self.couples_batch = True

    @property
    def entry(self) -> Linear:
        return self.blocks[0].linear

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return each_block(self.blocks, z, train=train, key=key)[1]

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.out(each_block(self.blocks, z, train=train, key=key)[-1], train=train)
        return x.reshape(z.shape[0], *self.feature.shape)


class Discriminator(nnx.Module):
    """PacGAN discriminator: ``depth`` fully connected hidden layers of maxout units.

    Maps examples ``[batch, *shape]`` to logits ``[batch]``.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
        pieces: number of linear maps in each maxout unit. The unit returns the largest output of these maps.
    """

    def __init__(
        self,
        feature: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 200,
        depth: PositiveInt = 3,
        pieces: PositiveInt = 5,
    ):
        self.pieces = pieces
        sizes = [feature.size] + [width] * depth
        self.layers = nnx.List(dense(a, b * pieces, rngs, init=_INIT) for a, b in pairwise(sizes))
        self.out = dense(width, 1, rngs, init=_INIT)
        self.couples_batch = False

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = layer(x, train=train).reshape(len(x), -1, self.pieces).max(-1)
        return x

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)[:, 0]
