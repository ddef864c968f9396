"""Residual networks of SNGAN for images (Miyato et al. 2018, tables 3 and 4, appendix B.4).

A block that changes the resolution combines a 3x3 convolution with nearest-neighbour upsampling or 2x2 average
pooling. Convolution, upsampling and pooling are linear, so a single 4x4 convolution of stride 2 computes the same
function with 4/9 of the multiplications. For upsampling, the 4x4 convolution is transposed. The 4x4 kernel is the
sum of four shifted copies of the 3x3 kernel. For pooling, the sum is divided by 4.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from gan_cli.models import conv
from gan_cli.models.layers import ACTIVATIONS, Finish, Linear, Minibatch, dense, stages
from gan_cli.types import Activation, Feature, MinibatchKind, Norm, PositiveInt

_GAIN_SQRT2 = nnx.initializers.variance_scaling(2.0, "fan_avg", "uniform")
_GLOROT = nnx.initializers.glorot_uniform()


class Generator(nnx.Module):
    """SNGAN generator: a dense layer, residual blocks that each double the resolution, and a convolution.

    Maps latents ``[batch, latent_dim]`` to images ``[batch, height, width, channels]`` in [-1, 1].

    Args:
        width: number of channels in every residual block.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. Batch and layer normalisation precede each activation. SNGAN uses ``batch``.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 256,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ):
        self.sides, doublings = stages("resnet", feature)
        spectral = norm == "spectral"
        self.first = dense(latent_dim, math.prod(self.sides) * width, rngs, init=_GLOROT, spectral=spectral)
        self.blocks = nnx.List(UpBlock(width, rngs, norm=norm, activation=activation) for _ in range(doublings))
        self.finish = Finish(width, norm=norm, activation=activation, dropout=0.0)
        self.out = _conv3(width, feature.shape[-1], rngs, spectral=spectral, init=_GLOROT)
        self.feature = feature
        self.couples_batch = norm == "batch"

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(z, train=train).reshape(z.shape[0], *self.sides, -1)
        return self.blocks[0](x, train=train, key=key)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.early(z, train=train, key=key)
        for block in self.blocks[1:]:
            x = block(x, train=train, key=key)
        return self.feature.head(self.out(self.finish(x, train=train, key=key), train=train))


class _Body(nnx.Module):
    """Residual blocks, all of which except the last two halve the resolution, and the final activation."""

    def __init__(self, feature: Feature, rngs: nnx.Rngs, *, width: int, norm: Norm, activation: Activation):
        # The final resolution is twice the initial resolution of the generator, e.g. 8x8 for 32x32 images. If the
        # generator doubles the resolution only once, the two resolutions are equal.
        sides, doublings = stages("resnet", feature)
        halvings = max(doublings - 1, 1)
        spectral = norm == "spectral"
        self.first = FirstBlock(feature.shape[-1], width, rngs, spectral=spectral, activation=activation)
        self.blocks = nnx.List(
            DownBlock(width, rngs, halve=i < halvings - 1, norm=norm, activation=activation)
            for i in range(halvings + 1)
        )
        self.finish = Finish(width, norm=norm, activation=activation, dropout=0.0)
        self.sides = tuple(side * 2 ** (doublings - halvings) for side in sides)

    def maps(self, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        made = [self.first(x, train=train)]
        for block in self.blocks:
            made.append(block(made[-1], train=train, key=key))
        return made

    def last(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """The output ``[batch, *sides, width]`` of the last block after the final activation."""
        return self.finish(self.maps(x, train=train, key=key)[-1], train=train, key=key)


class Discriminator(_Body):
    """SNGAN discriminator: residual blocks, a sum over all pixels, and a dense layer.

    Maps images ``[batch, height, width, channels]`` to logits ``[batch]``. All blocks except the last two
    halve the resolution.

    Args:
        width: number of channels in every residual block.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. Batch and layer normalisation precede each activation except in the first block. SNGAN
            uses ``spectral``.
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
        norm: Norm = "spectral",
        activation: Activation = "relu",
        minibatch: MinibatchKind = "none",
    ):
        super().__init__(feature, rngs, width=width, norm=norm, activation=activation)
        self.minibatch = Minibatch(minibatch, width, rngs)
        self.out = dense(self.minibatch.features, 1, rngs, init=_GLOROT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.minibatch(self.last(x, train=train, key=key).sum((1, 2)))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)[:, 0]


class Encoder(_Body):
    """Residual encoder: the blocks of the SNGAN discriminator, and a dense layer over all pixels and channels.

    Maps images ``[batch, height, width, channels]`` to ``[batch, outputs]``. Unlike the discriminator, the encoder
    does not sum over the pixels, because the code must determine the positions of the parts of an image.

    Args:
        width: number of channels in every residual block.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of an example. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. Batch and layer normalisation precede each activation except in the first block.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 128,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ):
        super().__init__(feature, rngs, width=width, norm=norm, activation=activation)
        inputs = math.prod(self.sides) * width
        self.out = dense(inputs, outputs, rngs, init=_GLOROT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch"

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.last(x, train=train, key=key).reshape(x.shape[0], -1), train=train)


class UpBlock(nnx.Module):
    """Residual block that doubles the resolution.

    The block computes double(shortcut(x)) + conv(act(norm(conv(double(act(norm(x))))))), where shortcut is a 1x1
    convolution, conv is a 3x3 convolution and double is nearest-neighbour upsampling.
    """

    def __init__(self, width: int, rngs: nnx.Rngs, *, norm: str, activation: str):
        spectral = norm == "spectral"
        self.before = Finish(width, norm=norm, activation=activation, dropout=0.0)
        self.grow = Linear((3, 3, width, width), double_then_conv, width, rngs, spectral=spectral, init=_GAIN_SQRT2)
        self.between = Finish(width, norm=norm, activation=activation, dropout=0.0)
        self.conv = _conv3(width, width, rngs, spectral=spectral)
        self.shortcut = _conv1(width, width, rngs, spectral=spectral)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        y = self.grow(self.before(x, train=train, key=key), train=train)
        y = self.conv(self.between(y, train=train, key=key), train=train)
        # A 1x1 convolution and nearest-neighbour upsampling commute. The convolution comes first, because its input
        # then has a quarter of the pixels.
        return y + double(self.shortcut(x, train=train))


class DownBlock(nnx.Module):
    """Residual block that can halve the resolution.

    If ``halve`` is true, the block computes halve(shortcut(x)) + halve(conv(act(norm(conv(act(norm(x))))))), where
    shortcut is a 1x1 convolution, conv is a 3x3 convolution and halve is 2x2 average pooling. If ``halve`` is
    false, the block computes x + conv(act(norm(conv(act(norm(x)))))).
    """

    def __init__(self, width: int, rngs: nnx.Rngs, *, halve: bool, norm: str, activation: str):
        spectral = norm == "spectral"
        self.before = Finish(width, norm=norm, activation=activation, dropout=0.0)
        self.conv = _conv3(width, width, rngs, spectral=spectral)
        self.between = Finish(width, norm=norm, activation=activation, dropout=0.0)
        last = conv_then_halve if halve else _apply
        self.last = Linear((3, 3, width, width), last, width, rngs, spectral=spectral, init=_GAIN_SQRT2)
        self.shortcut = _conv1(width, width, rngs, spectral=spectral) if halve else None

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        y = self.conv(self.before(x, train=train, key=key), train=train)
        y = self.last(self.between(y, train=train, key=key), train=train)
        return y + (x if self.shortcut is None else self.shortcut(halve(x), train=train))


class FirstBlock(nnx.Module):
    """First residual block of the discriminator: halve(shortcut(x)) + halve(conv(act(conv(x)))).

    Unlike ``DownBlock``, this block has no normalisation, and no activation precedes the first convolution.
    """

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs, *, spectral: bool, activation: str):
        self.activation = activation
        self.conv = _conv3(inputs, width, rngs, spectral=spectral)
        self.last = Linear((3, 3, width, width), conv_then_halve, width, rngs, spectral=spectral, init=_GAIN_SQRT2)
        self.shortcut = _conv1(inputs, width, rngs, spectral=spectral)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.last(ACTIVATIONS[self.activation](self.conv(x, train=train)), train=train)
        return y + self.shortcut(halve(x), train=train)


def _apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv(x, kernel, 1)


def _conv3(inputs: int, outputs: int, rngs: nnx.Rngs, *, spectral: bool, init: Initializer = _GAIN_SQRT2) -> Linear:
    return Linear((3, 3, inputs, outputs), _apply, outputs, rngs, spectral=spectral, init=init)


def _conv1(inputs: int, outputs: int, rngs: nnx.Rngs, *, spectral: bool) -> Linear:
    """A 1x1 convolution, computed as a matrix product over the channels."""
    return Linear((inputs, outputs), jnp.matmul, outputs, rngs, spectral=spectral, init=_GLOROT)


def halve(x: jax.Array) -> jax.Array:
    """2x2 average pooling: ``[n, h, w, c]`` -> ``[n, h/2, w/2, c]``."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by a factor of 2: ``[n, h, w, c]`` -> ``[n, 2h, 2w, c]``."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def conv_then_halve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution, then 2x2 average pooling, computed as one 4x4 convolution of stride 2."""
    return conv.conv(x, _spread(kernel) / 4, 2)


def double_then_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling, then a 3x3 convolution, as one transposed 4x4 convolution of stride 2."""
    return conv.conv_transpose(x, _spread(kernel)[::-1, ::-1].swapaxes(2, 3), 2)


def _spread(kernel: jax.Array) -> jax.Array:
    """The 4x4 kernel that is the sum of four shifted copies of a 3x3 kernel."""
    pads = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in range(2) for j in range(2)]
    return sum(jnp.pad(kernel, pad) for pad in pads)  # type: ignore[return-value]
