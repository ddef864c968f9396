"""Convolutional networks for images, after DCGAN (Radford et al. 2016).

All convolutions have 4x4 kernels and stride 2. Each convolution of the discriminator halves the resolution, and
each transposed convolution of the generator doubles the resolution. The hidden layer with the lowest resolution has
the most channels. Weights are initialised from a normal distribution with mean 0 and standard deviation 0.02.
"""

from __future__ import annotations

import math
from itertools import pairwise

import jax
from flax import nnx

from gan_cli.models.layers import Block, Finish, Linear, Minibatch, dense, down, each_block, stages, up
from gan_cli.types import Activation, Decay, Feature, MinibatchKind, Norm, PositiveInt

_INIT = nnx.initializers.normal(0.02)


class Generator(nnx.Module):
    """DCGAN generator: a dense layer, then ``depth`` transposed convolutions that double the resolution.

    Maps latents ``[batch, latent_dim]`` to images ``[batch, height, width, channels]`` in [-1, 1].

    Args:
        width: number of channels of the last hidden layer. Each earlier layer has twice as many channels as the
            layer after it.
        depth: number of transposed convolutions, each of which doubles the resolution. If null, the depth is as
            large as possible. The shorter side of the dense layer's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The output layer is not normalised.
        dropout: dropout rate of the hidden layers during training. 0 disables dropout.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "relu",
    ):
        self.sides, doublings = stages("dcgan", feature, depth)
        channels = [width * 2**i for i in reversed(range(doublings))]
        self.first = dense(
            latent_dim,
            math.prod(self.sides) * channels[0],
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
        self.out = up(channels[-1], feature.shape[-1], rngs, init=_INIT)
        self.feature = feature
        self.couples_batch = norm == "batch"

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(z, train=train).reshape(z.shape[0], *self.sides, -1)
        return self.finish(x, train=train, key=key)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        first_key, key = jax.random.split(key)
        x = self.early(z, train=train, key=first_key)
        x = each_block(self.blocks, x, train=train, key=key)[-1]
        return self.feature.head(self.out(x, train=train))


class _Body(nnx.Module):
    """Convolutions that halve the resolution, then a dense layer of ``outputs`` units."""

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: int,
        depth: int | None,
        norm: Norm,
        dropout: float,
        activation: Activation,
        minibatch: MinibatchKind,
    ):
        sides, halvings = stages("dcgan", feature, depth)
        channels = [feature.shape[-1]] + [width * 2**i for i in range(halvings)]
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
        self.minibatch = Minibatch(minibatch, math.prod(sides) * channels[-1], rngs)
        self.out = dense(self.minibatch.features, outputs, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def maps(self, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return each_block(self.blocks, x, train=train, key=key)[1:]

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.minibatch(self.maps(x, train=train, key=key)[-1].reshape(x.shape[0], -1))

    def outputs(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)


class Discriminator(_Body):
    """DCGAN discriminator: ``depth`` convolutions that halve the resolution, then a dense layer.

    Maps images ``[batch, height, width, channels]`` to logits ``[batch]``.

    Args:
        width: number of channels of the first hidden layer. Each later layer has twice as many channels as the
            layer before it.
        depth: number of convolutions, each of which halves the resolution. If null, the depth is as large as
            possible. The shorter side of the last convolution's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first layer (Radford et al. 2016) and the output layer have no batch or layer
            normalisation.
        dropout: dropout rate of the hidden layers during training. 0 disables dropout.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
        minibatch: statistic of the batch that is appended to the features, so that the discriminator can detect
            mode collapse. ``std`` appends the standard deviation of the features over the batch (Karras et al.
            2018). ``discrimination`` appends the similarity of an example to the other examples of the batch
            (Salimans et al. 2016). ``none`` appends no statistic.
    """

    def __init__(
        self,
        feature: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
        minibatch: MinibatchKind = "none",
    ):
        super().__init__(
            feature, 1, rngs,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch=minibatch,
        )  # fmt: skip

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.outputs(x, train=train, key=key)[:, 0]


class Encoder(_Body):
    """DCGAN encoder: ``depth`` convolutions that halve the resolution, then a dense layer.

    Maps images ``[batch, height, width, channels]`` to ``[batch, outputs]``.

    Args:
        width: number of channels of the first hidden layer. Each later layer has twice as many channels as the
            layer before it.
        depth: number of convolutions, each of which halves the resolution. If null, the depth is as large as
            possible. The shorter side of the last convolution's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first layer and the output layer have no batch or layer normalisation.
        dropout: dropout rate of the hidden layers during training. 0 disables dropout.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
    ):
        super().__init__(
            feature, outputs, rngs,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch="none",
        )  # fmt: skip

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.outputs(x, train=train, key=key)
