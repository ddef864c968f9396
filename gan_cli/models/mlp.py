"""Fully connected networks, for any kind of example."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models.layers import Block, Minibatch, dense, run_blocks
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

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.out(run_blocks(self.blocks, z, train=train, key=key), train=train)
        x = x if self.spec.low is None else jnp.tanh(x)
        return x.reshape(len(z), *self.spec.shape)


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

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = run_blocks(self.blocks, x.reshape(len(x), -1), train=train, key=key)
        return self.out(self.minibatch(x), train=train)[:, 0]
