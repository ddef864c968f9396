"""Temporal convolutional networks, for windows of series (Wiese et al. 2020, Quant GANs, section 3).

A residual block has two causal convolutions with the same dilation, and adds its input to their output. The
dilation doubles from block to block, so that few blocks read a long window.

The networks differ from Quant GANs:

- The generator reads one vector of latents, which a dense layer spreads over the time steps, in place of noise for
  each step, so the length of a window is fixed. A dense layer of the discriminator reads all steps.
- A convolution reads 3 steps, not 2. No skip connections lead from the blocks to the output.
- The activation is leaky_relu, not PReLU. Returns are standardised, without the inverse Lambert W transform.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from gan_cli.errors import UserError
from gan_cli.models.layers import Block, Linear, Minibatch, dense
from gan_cli.types import Activation, Decay, Feature, MinibatchKind, Norm, PositiveInt

_INIT = nnx.initializers.lecun_normal()
_TAPS = 3  # steps that one convolution reads
_HALF = 0.5**0.5  # keeps the variance of the sum of a block's input and output


class Generator(nnx.Module):
    """Temporal convolutional generator: a dense layer, then ``depth`` residual blocks of causal convolutions.

    Maps latents ``[batch, latent_dim]`` to windows ``[batch, length, columns]``. The dense layer makes ``width``
    channels for each time step. For windows of unpredictable values, such as returns, ``latent_dim`` should be at
    least length * columns.

    Args:
        width: number of channels.
        depth: number of residual blocks. With d blocks, a step of the output depends on 4 * 2^d - 3 steps.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first and the last layer are not normalised.
        dropout: dropout rate of the residual blocks during training. 0 disables dropout.
        activation: activation function. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 3,
        norm: Norm = "none",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
    ):
        length, columns = steps("temporal", feature)
        self.shape = length, width
        self.first = dense(latent_dim, length * width, rngs, init=_INIT)
        self.blocks = _blocks(width, depth, rngs, norm=norm, activation=activation, dropout=dropout)
        self.out = dense(width, columns, rngs, init=_INIT)
        self.feature = feature
        self.couples_batch = norm == "batch"

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(z, train=train).reshape(z.shape[0], *self.shape)
        return self.blocks[0](x, train=train, key=jax.random.fold_in(key, 0))

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.early(z, train=train, key=key)
        for i, block in enumerate(self.blocks[1:], 1):
            x = block(x, train=train, key=jax.random.fold_in(key, i))
        return self.feature.head(self.out(x, train=train))


class _Body(nnx.Module):
    """Residual blocks and an output layer of ``outputs`` units, which reads the channels of all time steps."""

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
        length, columns = steps("temporal", feature)
        self.first = dense(columns, width, rngs, init=_INIT, spectral=norm == "spectral")
        self.blocks = _blocks(width, depth, rngs, norm=norm, activation=activation, dropout=dropout)
        self.minibatch = Minibatch(minibatch, length * width, rngs)
        self.out = dense(self.minibatch.features, outputs, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(x, train=train)
        for i, block in enumerate(self.blocks):
            x = block(x, train=train, key=jax.random.fold_in(key, i))
        return self.minibatch(x.reshape(x.shape[0], -1))

    def outputs(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)


class Discriminator(_Body):
    """Temporal convolutional discriminator: ``depth`` residual blocks of causal convolutions, and a dense layer.

    Maps windows ``[batch, length, columns]`` to logits ``[batch]``.

    Args:
        width: number of channels.
        depth: number of residual blocks. With d blocks, a feature depends on 4 * 2^d - 3 steps.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first and the last layer have no batch or layer normalisation.
        dropout: dropout rate of the residual blocks during training. 0 disables dropout.
        activation: activation function. ``leaky_relu`` has slope 0.2 for negative inputs.
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
        depth: PositiveInt = 3,
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
    """Temporal convolutional encoder: ``depth`` residual blocks of causal convolutions, and a dense layer.

    Maps windows ``[batch, length, columns]`` to ``[batch, outputs]``.

    Args:
        width: number of channels.
        depth: number of residual blocks. With d blocks, a feature depends on 4 * 2^d - 3 steps.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first and the last layer have no batch or layer normalisation.
        dropout: dropout rate of the residual blocks during training. 0 disables dropout.
        activation: activation function. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 3,
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


class _Residual(nnx.Module):
    """Two causal convolutions, to whose output the input is added. Both have ``width`` channels."""

    def __init__(
        self, width: int, dilation: int, rngs: nnx.Rngs, *, norm: Norm, activation: Activation, dropout: float
    ):
        convolution = functools.partial(causal, dilation=dilation)
        self.blocks = nnx.List(
            Block(convolution, width, width, rngs, norm=norm, activation=activation, dropout=dropout, init=_INIT)
            for _ in range(2)
        )

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        y = x
        for i, block in enumerate(self.blocks):
            y = block(y, train=train, key=jax.random.fold_in(key, i))
        return (x + y) * _HALF


def _blocks(
    width: int, depth: int, rngs: nnx.Rngs, *, norm: Norm, activation: Activation, dropout: float
) -> nnx.List[_Residual]:
    return nnx.List(
        _Residual(width, 2**i, rngs, norm=norm, activation=activation, dropout=dropout) for i in range(depth)
    )


def causal(
    inputs: int,
    outputs: int,
    rngs: nnx.Rngs,
    *,
    init: Initializer,
    dilation: int = 1,
    spectral: bool = False,
    bias: bool = True,
) -> Linear:
    """A causal convolution: step t of the output depends on the steps t, t - dilation and t - 2 dilation."""
    apply = functools.partial(_causal, dilation=dilation)
    return Linear((_TAPS, inputs, outputs), apply, outputs, rngs, spectral=spectral, bias=bias, init=init)


def _causal(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """The convolution of ``x`` ``[batch, length, in]``, with zeros before the first step.

    The convolution is one matrix product of shifted copies. With a gradient penalty inside a compiled loop, it took
    1.6 ms on a CPU for 64 windows of 24 steps and 32 channels, and XLA's dilated convolution 36 ms.
    """
    length = x.shape[1]
    padded = jnp.pad(x, ((0, 0), ((_TAPS - 1) * dilation, 0), (0, 0)))
    shifted = [padded[:, i * dilation : i * dilation + length] for i in range(_TAPS)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def steps(model: str, feature: Feature) -> tuple[int, int]:
    """A pair: the number of time steps and of columns of a feature.

    Args:
        model: name of the model in error messages.

    Raises:
        UserError: the feature is no window of a series.
    """
    if len(feature.shape) != 2:
        raise UserError(
            f"model={model}: reads windows of series, but the examples of the data set are {feature.noun}. Use "
            "model=mlp, or a data set of series, e.g. dataset=stocks."
        )
    length, columns = feature.shape
    return length, columns
