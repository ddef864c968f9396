"""The feature of a clip: a fixed number of frames of one size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gan_cli.data.features import Image
from gan_cli.data.scaling import denormalise, normalise
from gan_cli.types import ArrayT, Feature


@dataclass(frozen=True)
class Video(Feature):
    """A clip: uint8 ``[frames, height, width, channels]`` in files and in memory, float32 in [-1, 1] in networks.

    Attributes:
        frames: number of frames.
        height: number of rows of a frame.
        width: number of columns of a frame.
        channels: number of channels: grey (1) or RGB (3).
    """

    frames: int
    height: int
    width: int
    channels: int
    dtype = "uint8"
    bounds = (-1.0, 1.0)
    noun = "clips"
    values_name = "pixels"
    extractor = "frames"
    public = True

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return self.frames, self.height, self.width, self.channels

    @property
    def length(self) -> int:
        """Number of time steps: the number of frames."""
        return self.frames

    @property
    def frame(self) -> Image:
        """The feature of one frame."""
        return Image(self.height, self.width, self.channels)

    def encode(self, stored: ArrayT) -> ArrayT:
        return normalise(stored)

    def decode(self, x: jax.Array) -> jax.Array:
        return denormalise(x)

    def head(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        return jnp.tanh(x)

    def widened(self, channels: int) -> Video:
        return dataclasses.replace(self, channels=channels)

    def part(self, frames: int) -> Video:
        """The feature of clips with another number of frames."""
        return dataclasses.replace(self, frames=frames)
