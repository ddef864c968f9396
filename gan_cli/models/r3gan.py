"""Residual networks of R3GAN, with grouped convolutions and without normalisation (Huang et al. 2024).

Section 4 of the paper describes the networks. A block computes x + conv1(act(conv3(act(conv1(x))))), where conv1
is a 1x1 convolution and conv3 is a grouped 3x3 convolution. The 3x3 convolution has ``expansion`` times as many
channels as the input of the block. The last kernel of a block is initialised to zero. The initial scale of the
other kernels of a block depends on the number of blocks in the network (Fixup initialisation, Zhang et al. 2019).
Between two stages, bilinear interpolation doubles the resolution in the generator and halves the resolution in the
discriminator.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer

from gan_cli.errors import UserError
from gan_cli.models import conv
from gan_cli.models.layers import ACTIVATIONS, Linear, dense, stages
from gan_cli.types import Feature, PositiveInt

_ZERO = nnx.initializers.zeros
_RECTIFIED = (2 / (1 + 0.2**2)) ** 0.5  # preserves the variance through leaky_relu of slope 0.2 (He et al. 2015)
_FAN_IN = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")


class Generator(nnx.Module):
    """R3GAN generator: residual stages, each with twice the resolution of the stage before it.

    Maps latents ``[batch, latent_dim]`` to images ``[batch, height, width, channels]``. As in the paper, the
    output is linear, so values can lie outside the range [-1, 1] of the data.

    Args:
        width: number of channels in every stage.
        blocks: number of residual blocks in each stage. All blocks of a stage have the same resolution.
        expansion: number of channels of the 3x3 convolution in each block, divided by ``width``.
        groups: number of groups of the 3x3 convolution in each block. ``width * expansion`` must be a multiple of
            ``groups``.
    """

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 32,
        blocks: PositiveInt = 1,
        expansion: PositiveInt = 2,
        groups: PositiveInt = 4,
    ):
        sides, doublings = stages("r3gan", feature)
        total = blocks * (doublings + 1)
        self.basis = nnx.Param(jax.random.normal(rngs.params(), (*sides, width)))
        self.first = dense(latent_dim, width, rngs, init=_FAN_IN, bias=False)
        self.stages = nnx.List(_stage(blocks, width, expansion, groups, total, rngs) for _ in range(doublings + 1))
        self.out = _pointwise(width, feature.shape[-1], rngs, bias=False, gain=1.0)
        self.couples_batch = False

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.first(z, train=train)[:, None, None] * self.basis[...].astype(z.dtype)
        return _run(self.stages[0], x, train)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.early(z, train=train, key=key)
        for stage in self.stages[1:]:
            x = _run(stage, double(x), train)
        return self.out(x, train=train)


class Discriminator(nnx.Module):
    """R3GAN discriminator: residual stages, each with half the resolution of the stage before it.

    Maps images ``[batch, height, width, channels]`` to logits ``[batch]``.

    Args:
        width: number of channels in every stage.
        blocks: number of residual blocks in each stage. All blocks of a stage have the same resolution.
        expansion: number of channels of the 3x3 convolution in each block, divided by ``width``.
        groups: number of groups of the 3x3 convolution in each block. ``width * expansion`` must be a multiple of
            ``groups``.
    """

    def __init__(
        self,
        feature: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 32,
        blocks: PositiveInt = 1,
        expansion: PositiveInt = 2,
        groups: PositiveInt = 4,
    ):
        sides, halvings = stages("r3gan", feature)
        total = blocks * (halvings + 1)
        self.first = _pointwise(feature.shape[-1], width, rngs, bias=False, gain=1.0)
        self.stages = nnx.List(_stage(blocks, width, expansion, groups, total, rngs) for _ in range(halvings + 1))
        self.basis = nnx.Param(_FAN_IN(rngs.params(), (math.prod(sides), width)).reshape(*sides, width))
        self.out = dense(width, 1, rngs, init=_FAN_IN, bias=False)
        self.couples_batch = False

    def maps(self, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        made: list[jax.Array] = []
        for i, stage in enumerate(self.stages):
            made.append(_run(stage, halve(made[-1]) if i else self.first(x, train=train), train))
        return made

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.maps(x, train=train, key=key)[-1]
        # This is a depthwise convolution whose kernel covers the whole map, so the output has one value per
        # channel.
        return jnp.einsum("nhwc,hwc->nc", x, self.basis[...].astype(x.dtype))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)[:, 0]


class ResidualBlock(nnx.Module):
    """Residual block x + conv1(act(conv3(act(conv1(x))))) with a grouped 3x3 convolution.

    Args:
        total: number of residual blocks in the network, which determines the scale of the initial kernels (Fixup).

    Raises:
        UserError: ``groups`` does not divide ``width * expansion``.
    """

    def __init__(self, width: int, expansion: int, groups: int, total: int, rngs: nnx.Rngs):
        inner = width * expansion
        if inner % groups:
            raise UserError(
                f"model=r3gan: groups={groups} does not divide width * expansion = {width} * {expansion} = "
                f"{inner}. In model.generator or model.discriminator, set groups to a divisor of {inner}, e.g. "
                f"groups={math.gcd(groups, inner)}, or change width or expansion."
            )
        scale = total**-0.25  # L^(-1 / (2m - 2)) with L blocks of m = 3 layers
        self.wide = _pointwise(width, inner, rngs, bias=True, gain=_RECTIFIED * scale)
        self.conv = Linear((3, 3, inner // groups, inner), _grouped, inner, rngs, init=_gain(_RECTIFIED * scale))
        self.narrow = Linear((inner, width), jnp.matmul, width, rngs, bias=False, init=_ZERO)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        act = ACTIVATIONS["leaky_relu"]
        y = act(self.conv(act(self.wide(x, train=train)), train=train))
        return x + self.narrow(y, train=train)


def _stage(
    blocks: int, width: int, expansion: int, groups: int, total: int, rngs: nnx.Rngs
) -> nnx.List[ResidualBlock]:
    return nnx.List(ResidualBlock(width, expansion, groups, total, rngs) for _ in range(blocks))


def _run(stage: nnx.List[ResidualBlock], x: jax.Array, train: bool) -> jax.Array:
    for block in stage:
        x = block(x, train=train)
    return x


def _gain(gain: float) -> Initializer:
    return nnx.initializers.variance_scaling(gain**2, "fan_in", "normal")


def _pointwise(inputs: int, outputs: int, rngs: nnx.Rngs, *, bias: bool, gain: float) -> Linear:
    """A 1x1 convolution, computed as a matrix product over the channels."""
    return Linear((inputs, outputs), jnp.matmul, outputs, rngs, bias=bias, init=_gain(gain))


def _grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A grouped convolution with SAME padding and a kernel of shape ``[3, 3, in / groups, out]``."""
    groups = x.shape[-1] // kernel.shape[2]
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
    # One convolution per group, because XLA's grouped convolution is slow on a CPU.
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([conv.conv(inputs, part, 1) for inputs, part in parts], axis=-1)


def halve(x: jax.Array) -> jax.Array:
    """Halves height and width: ``[n, h, w, c]`` -> ``[n, h/2, w/2, c]``.

    The filter [1, 3, 3, 1] / 8 is applied along each axis with stride 2 and zero padding.
    """
    for axis in (1, 2):
        even, odd = (lax.slice_in_dim(x, start, None, 2, axis) for start in (0, 1))
        x = (_moved(odd, 1, axis) + 3 * even + 3 * odd + _moved(even, -1, axis)) / 8
    return x


def double(x: jax.Array) -> jax.Array:
    """Doubles height and width by bilinear interpolation: ``[n, h, w, c]`` -> ``[n, 2h, 2w, c]``.

    The interpolation is equivalent to two operations along each axis: a zero is inserted after each value, and the
    filter [1, 3, 3, 1] / 4 is applied with zero padding.
    """
    for axis in (1, 2):
        shape = list(x.shape)
        shape[axis] *= 2
        pair = [(3 * x + _moved(x, by, axis)) / 4 for by in (1, -1)]
        x = jnp.stack(pair, axis + 1).reshape(shape)
    return x


def _moved(x: jax.Array, by: int, axis: int) -> jax.Array:
    """``x``, shifted along an axis: each value moves to the next (``by=1``) or previous (``by=-1``) index.

    A zero fills the empty index at the edge.
    """
    edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
