"""Fully connected networks, for images and points."""

from __future__ import annotations

from itertools import pairwise

import jax
from flax import nnx

from gan_cli.models.layers import Block, Linear, Minibatch, dense, each_block
from gan_cli.types import Activation, Decay, Feature, MinibatchKind, Norm, PositiveInt

_INIT = nnx.initializers.lecun_normal()


class Generator(nnx.Module):
    """Fully connected generator with ``depth`` hidden layers of ``width`` units.

    Maps latents ``[batch, latent_dim]`` to examples ``[batch, *shape]``. The feature
    determines the output activation: tanh for images, none for points.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
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
        self.out = dense(width, feature.size, rngs, init=_INIT)
        self.feature = feature
        self.couples_batch = norm == "batch"

    @property
    def entry(self) -> Linear:
        return self.blocks[0].linear

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return each_block(self.blocks, z, train=train, key=key)[1]

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.out(each_block(self.blocks, z, train=train, key=key)[-1], train=train)
        return self.feature.head(x.reshape(z.shape[0], *self.feature.shape))


class _Body(nnx.Module):
    """Hidden layers and an output layer of ``outputs`` units, for examples ``[batch, *shape]``."""

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: int,
        depth: int,
        norm: Norm,
        dropout: float,
        activation: Activation,
        minibatch: MinibatchKind,
    ):
        sizes = [feature.size] + [width] * depth
        self.blocks = nnx.List(
            Block(dense, a, b, rngs, norm=norm, activation=activation, dropout=dropout, init=_INIT)
            for a, b in pairwise(sizes)
        )
        self.minibatch = Minibatch(minibatch, width, rngs)
        self.out = dense(self.minibatch.features, outputs, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.minibatch(each_block(self.blocks, x.reshape(x.shape[0], -1), train=train, key=key)[-1])

    def outputs(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)


class Discriminator(_Body):
    """Fully connected discriminator with ``depth`` hidden layers of ``width`` units.

    Maps examples ``[batch, *shape]`` to logits ``[batch]``.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The output layer has no batch or layer normalisation.
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
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        norm: Norm = "none",
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
    """Fully connected encoder with ``depth`` hidden layers of ``width`` units.

    Maps examples ``[batch, *shape]`` to ``[batch, outputs]``.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The output layer has no batch or layer normalisation.
        dropout: dropout rate of the hidden layers during training. 0 disables dropout.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        norm: Norm = "none",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
    ):
        super().__init__(
            feature, outputs, rngs,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch="none",
        )  # fmt: skip

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.outputs(x, train=train, key=key)
