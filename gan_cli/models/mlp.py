"""Fully connected networks, for any kind of example."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models.layers import Block, Linear, Minibatch, dense, each_block
from gan_cli.types import Activation, Decay, MinibatchKind, Norm, PositiveInt, Spec

_INIT = nnx.initializers.lecun_normal()


class Generator(nnx.Module):
    """``[batch, latent_dim]`` -> ``[batch, *spec.shape]``: ``depth`` hidden layers of ``width``.

    The output passes a tanh where the data's values are bounded by -1 and 1, and nothing where they are not.
    """

    def __init__(
        self,
        spec: Spec,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        norm: Norm = "none",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
    ):
        sizes = [latent_dim] + [width] * depth
        self.blocks = nnx.List(
            Block(dense, a, b, rngs, norm=norm, activation=activation, dropout=dropout, init=_INIT)
            for a, b in pairwise(sizes)
        )
        self.out = dense(width, spec.size, rngs, init=_INIT)
        self.spec = spec

    @property
    def entry(self) -> Linear:
        return self.blocks[0].linear

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return each_block(self.blocks, z, train=train, key=key)[1]

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.out(each_block(self.blocks, z, train=train, key=key)[-1], train=train)
        x = x if self.spec.low is None else jnp.tanh(x)
        return x.reshape(z.shape[0], *self.spec.shape)


class Discriminator(nnx.Module):
    """``[batch, *spec.shape]`` -> logits ``[batch]``: ``depth`` hidden layers of ``width``."""

    def __init__(
        self,
        spec: Spec,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        norm: Norm = "none",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
        minibatch: MinibatchKind = "none",
    ):
        sizes = [spec.size] + [width] * depth
        self.blocks = nnx.List(
            Block(dense, a, b, rngs, norm=norm, activation=activation, dropout=dropout, init=_INIT)
            for a, b in pairwise(sizes)
        )
        self.minibatch = Minibatch(minibatch, width, rngs)
        self.out = dense(self.minibatch.features, 1, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.minibatch(each_block(self.blocks, x.reshape(len(x), -1), train=train, key=key)[-1])

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)[:, 0]
