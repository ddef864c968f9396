"""Convolutional networks after DCGAN (Radford et al. 2016), for square images.

4x4 kernels of stride 2 halve or double the side in each layer, weights start from N(0, 0.02), and the widest
layer is next to the smallest image.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models.layers import Block, Finish, Linear, Minibatch, dense, down, each_block, stages, up
from gan_cli.types import Activation, Decay, MinibatchKind, Norm, PositiveInt, Spec

_INIT = nnx.initializers.normal(0.02)


class Generator(nnx.Module):
    """``[batch, latent_dim]`` -> images: a dense layer, then ``depth`` doublings of the side.

    Args:
        width: channels of the layer next to the image; each layer before has twice as many.
        depth: number of doublings; None makes as many as the data's side allows.
    """

    def __init__(
        self,
        spec: Spec,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "relu",
    ):
        self.side, doublings = stages("dcgan", spec, depth)
        channels = [width * 2**i for i in reversed(range(doublings))]
        self.first = dense(
            latent_dim,
            self.side**2 * channels[0],
            rngs,
            init=_INIT,
            spectral=norm == "spectral",
            bias=norm != "batch",
        )
        self.finish = Finish(channels[0], norm=norm, activation=activation, dropout=dropout)
        self.blocks = nnx.List(
            Block(up, a, b, rngs, norm=norm, activation=activation, dropout=dropout, init=_INIT)
            for a, b in pairwise(channels)
        )
        self.out = up(channels[-1], spec.shape[-1], rngs, init=_INIT)

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(z, train=train).reshape(z.shape[0], self.side, self.side, -1)
        return self.finish(x, train=train, key=key)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        first_key, key = jax.random.split(key)
        x = self.early(z, train=train, key=first_key)
        x = each_block(self.blocks, x, train=train, key=key)[-1]
        return jnp.tanh(self.out(x, train=train))


class Discriminator(nnx.Module):
    """Images -> logits ``[batch]``: ``depth`` halvings of the side, then a dense layer.

    Args:
        width: channels of the first layer; each layer after has twice as many.
        norm: as everywhere; batch and layer normalisation leave the first layer out (Radford et al. 2016).
        depth: number of halvings; None makes as many as the data's side allows.
    """

    def __init__(
        self,
        spec: Spec,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
        minibatch: MinibatchKind = "none",
    ):
        side, halvings = stages("dcgan", spec, depth)
        channels = [spec.shape[-1]] + [width * 2**i for i in range(halvings)]
        first = norm if norm == "spectral" else "none"
        self.blocks = nnx.List(
            Block(
                down,
                a,
                b,
                rngs,
                norm=norm if i else first,
                activation=activation,
                dropout=dropout,
                init=_INIT,
            )
            for i, (a, b) in enumerate(pairwise(channels))
        )
        self.minibatch = Minibatch(minibatch, side**2 * channels[-1], rngs)
        self.out = dense(self.minibatch.features, 1, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def maps(self, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return each_block(self.blocks, x, train=train, key=key)[1:]

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.minibatch(self.maps(x, train=train, key=key)[-1].reshape(len(x), -1))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)[:, 0]
