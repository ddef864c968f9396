"""The feature of a window of a time series: how its values are stored, and how networks see them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.types import ArrayT, Feature


@dataclass(frozen=True)
class Series(Feature):
    """A window of a time series, float32 ``[length, columns]`` in the unit of the data, e.g. log-returns or prices.

    Networks see (value - centre) / scale of each column.

    Attributes:
        length: number of time steps.
        names: names of the columns.
        centre: the value of each column that networks see as 0.
        scale: the distance of each column that networks see as 1.
        returns: whether the values are log-returns, the differences of the logarithms of consecutive levels.
        bounded: whether networks see values in [-1, 1] only, the range of the data.
    """

    length: int
    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    returns: bool = False
    bounded: bool = False
    noun = "windows"
    extractor = "pixels"

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return self.length, self.columns

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]  # a property of an immutable feature
        return (-1.0, 1.0) if self.bounded else None

    def encode(self, stored: ArrayT) -> ArrayT:
        centre, scale = np.asarray(self.centre, np.float32), np.asarray(self.scale, np.float32)
        seen: ArrayT = (stored - centre) / scale
        return seen

    def decode(self, x: jax.Array) -> jax.Array:
        return x * jnp.asarray(self.scale, jnp.float32) + jnp.asarray(self.centre, jnp.float32)

    def head(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        return jnp.tanh(x) if self.bounded else x

    def values(self, x: np.ndarray) -> np.ndarray:
        """Windows ``[n, length, columns]`` as networks see them, in the unit of the data."""
        return np.asarray(self.decode(jnp.asarray(x)))

    def widened(self, channels: int) -> Series:
        names = tuple(map(str, range(channels)))
        return Series(self.length, names, (0.0,) * channels, (1.0,) * channels)

    def part(self, length: int) -> Series:
        """The feature of windows of another length."""
        return dataclasses.replace(self, length=length)
