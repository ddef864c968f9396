"""MoCoGAN: networks for clips, with a code of the content and codes of the motion (Tulyakov et al. 2018).

The frames of a clip share the content code. A gated recurrent unit makes the motion code of each frame from noise.
The discriminator consists of two networks: one sees single frames, one the whole clip.

A spatio-temporal convolution with t taps along the time is computed as a convolution of images whose channels are
those of t consecutive frames, so that it runs fast inside a compiled loop on a CPU (see ``gan_cli.models.conv``).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.models import dcgan
from gan_cli.models.layers import Block, Minibatch, dense, down, stages
from gan_cli.models.recurrent import Gated
from gan_cli.types import Activation, Decay, Feature, MinibatchKind, Motion, Norm, PositiveInt

_INIT = nnx.initializers.normal(0.02)
_MOTION_DIM = 10


@dataclass(frozen=True)
class _Frame(Feature):
    """A frame before the output activation of its clip, ``[height, width, channels]``."""

    shape: tuple[int, ...]
    noun = "frames"

    def widened(self, channels: int) -> _Frame:
        return dataclasses.replace(self, shape=(*self.shape[:-1], channels))


class Generator(nnx.Module):
    """MoCoGAN generator: a recurrent network of motion codes, and a DCGAN generator of frames.

    Maps latents ``[batch, (frames + 1) * motion_dim + content]`` to clips ``[batch, frames, height, width,
    channels]``. The latents are the first state of the recurrent network and its input at each frame, followed by
    the content code, whose size is ``model.latent_dim``.

    Attributes:
        motion_latents: number of the first latents, which determine the motion.

    Args:
        motion_dim: number of values of a motion code, and of the noise from which each frame's code is made.
        motion: how the motion codes act. With ``codes``, each frame is drawn from the content code and its motion
            code (Tulyakov et al. 2018), so that a motion code may change the appearance as well. With
            ``transform``, the content code alone draws the appearance, and the motion code of a frame shifts it,
            with bilinear interpolation.
        objects: number of appearances that move independently with ``motion=transform``. Where they overlap, the
            brighter one is visible.
        width: number of channels of the last hidden layer. Each earlier layer has twice as many channels as the
            layer after it.
        depth: number of transposed convolutions, each of which doubles the resolution. If null, the depth is as
            large as possible. The shorter side of the dense layer's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of a frame. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The output layer is not normalised.
        dropout: dropout rate of the hidden layers during training. 0 disables dropout.
        activation: activation function of the hidden layers. ``leaky_relu`` has slope 0.2 for negative inputs.
    """

    @staticmethod
    def extra_latents(feature: Feature, *, motion_dim: int = _MOTION_DIM, **others: Any) -> int:
        """Number of latents that the generator reads besides the content code of ``model.latent_dim`` values."""
        frames, *_ = _clip(feature)
        return (frames + 1) * motion_dim

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        motion_dim: PositiveInt = _MOTION_DIM,
        motion: Motion = "codes",
        objects: PositiveInt = 1,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "relu",
    ):
        if objects > 1 and motion == "codes":
            raise UserError(
                f"model.generator.objects={objects}: needs model.generator.motion=transform, which moves "
                "appearances. Set it, or set model.generator.objects=1."
            )
        frames, *sides, channels = _clip(feature)
        _stages(feature, depth)
        self.motion_shape, self.objects = (frames + 1, motion_dim), objects
        self.motion_latents = math.prod(self.motion_shape)
        content = latent_dim - self.motion_latents
        self.cell = Gated(motion_dim, motion_dim, rngs)
        self.frame = dcgan.Generator(
            _Frame((*sides, objects * channels)), content + (motion_dim if motion == "codes" else 0), rngs,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation,
        )  # fmt: skip
        moved = motion == "transform"
        self.shift = dense(motion_dim, 2 * objects, rngs, init=nnx.initializers.lecun_normal()) if moved else None
        # The value around a shifted appearance: black, or a learnt value in front of an output activation.
        if moved and feature.bounds is None:
            self.around = nnx.Param(jnp.zeros(()))
        self.feature = feature
        self.couples_batch = norm == "batch"

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        noise, content = z[:, : self.motion_latents], z[:, self.motion_latents :]
        noise = noise.reshape(-1, *self.motion_shape)
        codes = self.cell(noise[:, 1:], train=train, start=noise[:, 0])  # [batch, frames, motion_dim]
        n, frames, _ = codes.shape
        if self.shift is None:
            repeated = jnp.broadcast_to(content[:, None], (n, frames, content.shape[1]))
            both = jnp.concatenate([repeated, codes], axis=2).reshape(n * frames, -1)
            return self.feature.head(self.frame(both, train=train, key=key).reshape(n, *self.feature.shape))
        appearance = self.feature.head(self.frame(content, train=train, key=key))
        appearance = appearance.reshape(n, *appearance.shape[1:3], self.objects, -1)
        # The unit of the layer's outputs is a quarter of the frame, so that initial motions are visible.
        by = self.shift(codes, train=train).reshape(n, frames, self.objects, 2)
        by *= jnp.asarray(appearance.shape[1:3], by.dtype) / 4
        around = self.feature.bounds[0] if self.feature.bounds else self.around[...]
        return around + shifted(appearance - around, by).max(4)


class Discriminator(nnx.Module):
    """MoCoGAN discriminator: a DCGAN discriminator of random frames, and spatio-temporal convolutions of clips.

    Maps clips ``[batch, frames, height, width, channels]`` to logits ``[batch, 2]``: of frames and of the clip. The
    loss of a player is the sum of its losses for both (Tulyakov et al. 2018, eq. 7).

    Args:
        seen_frames: number of frames of a clip that the frame discriminator sees together as channels. With 1, it
            judges single frames (Tulyakov et al. 2018). With 2, it also compares the content of two frames.
        taps: number of consecutive frames that a spatio-temporal convolution reads.
        width: number of channels of the first hidden layer of each network. Each later layer has twice as many
            channels as the layer before it.
        depth: number of convolutions, each of which halves the resolution. If null, the depth is as large as
            possible. The shorter side of the last convolution's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of a frame. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
            normalisation. The first layers and the output layers have no batch or layer normalisation.
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
        seen_frames: PositiveInt = 1,
        taps: PositiveInt = 4,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
        minibatch: MinibatchKind = "none",
    ):
        frames, *sides, channels = _clip(feature)
        _stages(feature, depth)
        if seen_frames > frames:
            raise UserError(
                f"model.discriminator.seen_frames={seen_frames}: a clip has {frames} frames. Choose a number up to "
                f"{frames}."
            )
        self.seen = seen_frames
        self.frame = dcgan.Discriminator(
            _Frame((*sides, channels * seen_frames)), rngs,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch=minibatch,
        )  # fmt: skip
        self.clip = _Convolutions(
            feature, 1, rngs, taps=taps,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch=minibatch,
        )  # fmt: skip
        self.couples_batch = self.frame.couples_batch or self.clip.couples_batch

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        frames = self._frames(x, train, key)
        of_frames = self.frame.features(frames, train=train, key=jax.random.fold_in(key, 1))
        return jnp.concatenate([of_frames, self.clip.features(x, train=train, key=jax.random.fold_in(key, 2))], 1)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        frames = self._frames(x, train, key)
        of_frames = self.frame(frames, train=train, key=jax.random.fold_in(key, 1))
        of_clip = self.clip(x, train=train, key=jax.random.fold_in(key, 2))
        return jnp.stack([of_frames, of_clip[:, 0]], axis=1)

    def _frames(self, x: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        """Frames of each clip as channels: random frames in their order in training, else evenly spaced ones."""
        n, length, *sides, channels = x.shape
        if train:
            order = jnp.argsort(jax.random.uniform(key, (n, length)), axis=1)
            chosen = jnp.sort(order[:, : self.seen], axis=1)
        else:
            evenly = np.linspace(0, length - 1, self.seen + 2)[1:-1].round().astype(int)
            chosen = jnp.broadcast_to(jnp.asarray(evenly), (n, self.seen))
        # A product with one-hot vectors: on a CPU, the derivative of a gather is a slow scatter.
        kept = jax.nn.one_hot(chosen, length, dtype=x.dtype)
        frames = jnp.einsum("nkt,ntp->npk", kept, x.reshape(n, length, -1))
        frames = frames.reshape(n, *sides, channels * self.seen)
        return frames


class Encoder(nnx.Module):
    """Encoder of clips: spatio-temporal convolutions, then a dense layer.

    Maps clips ``[batch, frames, height, width, channels]`` to ``[batch, outputs]``.

    Args:
        taps: number of consecutive frames that a spatio-temporal convolution reads.
        width: number of channels of the first hidden layer. Each later layer has twice as many channels as the
            layer before it.
        depth: number of convolutions, each of which halves the resolution. If null, the depth is as large as
            possible. The shorter side of the last convolution's output then has between 4 and 7 pixels.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch. ``layer`` normalises over all
            values of a frame. ``spectral`` divides each kernel by its spectral norm. ``none`` disables
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
        taps: PositiveInt = 4,
        width: PositiveInt = 64,
        depth: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Decay = 0.0,
        activation: Activation = "leaky_relu",
    ):
        self.clip = _Convolutions(
            feature, outputs, rngs, taps=taps,
            width=width, depth=depth, norm=norm, dropout=dropout, activation=activation, minibatch="none",
        )  # fmt: skip
        self.couples_batch = self.clip.couples_batch

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.clip(x, train=train, key=key)


class _Convolutions(nnx.Module):
    """Spatio-temporal convolutions that halve the resolution, then a dense layer of ``outputs`` units.

    Each convolution reads ``taps`` consecutive frames, or all frames if fewer are left, at every time (stride 1).
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        taps: int,
        width: int,
        depth: int | None,
        norm: Norm,
        dropout: float,
        activation: Activation,
        minibatch: MinibatchKind,
    ):
        frames, *_, colours = _clip(feature)
        sides, halvings = _stages(feature, depth)
        channels = [colours] + [width * 2**i for i in range(halvings)]
        read = list[int]()
        for _ in range(halvings):
            read.append(min(taps, frames))
            frames -= read[-1] - 1
        self.taps = tuple(read)
        first = norm if norm == "spectral" else "none"
        self.blocks = nnx.List(
            Block(
                down,
                a * used,
                b,
                rngs,
                norm=norm if i else first,
                activation=activation,
                dropout=dropout,
                init=_INIT,
            )
            for i, ((a, b), used) in enumerate(zip(pairwise(channels), self.taps, strict=True))
        )
        self.minibatch = Minibatch(minibatch, frames * math.prod(sides) * channels[-1], rngs)
        self.out = dense(self.minibatch.features, outputs, rngs, init=_INIT, spectral=norm == "spectral")
        self.couples_batch = norm == "batch" or minibatch != "none"

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        for i, (block, taps) in enumerate(zip(self.blocks, self.taps, strict=True)):
            seen = windows(x, taps)
            made = block(seen.reshape(-1, *seen.shape[2:]), train=train, key=jax.random.fold_in(key, i))
            x = made.reshape(*seen.shape[:2], *made.shape[1:])
        return self.minibatch(x.reshape(x.shape[0], -1))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)


def windows(x: jax.Array, taps: int) -> jax.Array:
    """All windows of ``taps`` consecutive frames, as channels.

    ``[n, t, h, w, c]`` -> ``[n, t - taps + 1, h, w, taps * c]``. A convolution of these images with a kernel
    ``[kh, kw, taps * c, out]`` is a spatio-temporal convolution with the kernel ``[taps, kh, kw, c, out]``.
    """
    count = x.shape[1] - taps + 1
    return jnp.concatenate([x[:, i : i + count] for i in range(taps)], axis=-1)


def shifted(images: jax.Array, by: jax.Array) -> jax.Array:
    """Images ``[n, h, w, objects, c]``, shifted by ``by`` ``[n, frames, objects, 2]``: rows and columns in pixels.

    Bilinear interpolation, with zeros around the image. Returns ``[n, frames, h, w, objects, c]``.
    """

    def weights(distance: jax.Array, side: int) -> jax.Array:
        places = jnp.arange(side, dtype=images.dtype)
        apart = places[:, None] - (places + distance[..., None, None])
        return jnp.maximum(1 - jnp.abs(apart), 0)  # [n, frames, objects, side, side]

    down_, across = (weights(by[..., axis], images.shape[1 + axis]) for axis in (0, 1))
    moved = jnp.einsum("ntoah,nhwoc->ntoawc", down_, images)
    return jnp.einsum("ntobw,ntoawc->ntaboc", across, moved)


def _clip(feature: Feature) -> tuple[int, ...]:
    """Number of frames, height, width and number of channels of a clip.

    Raises:
        UserError: the data are not clips.
    """
    if len(feature.shape) != 4:
        raise UserError(
            f"model=mocogan: generates clips, but the examples of the data set are {feature.noun}. Choose clips, "
            "e.g. dataset=moving_digits, or another model, e.g. model=mlp."
        )
    return feature.shape


def _stages(feature: Feature, depth: int | None) -> tuple[tuple[int, int], int]:
    """The stages of the networks (see ``layers.stages``), with messages about clips rather than about images."""
    return stages("mocogan", _Frame(feature.shape[1:]), depth, "dataset.size")
