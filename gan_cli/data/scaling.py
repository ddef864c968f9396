"""Conversion of images between integers (0 to 255 or 65,535, in files) and floats (-1 to 1, in networks)."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def normalise(examples: Array) -> Array:
    """Images of 8 or 16 bits per value as float32 in [-1, 1]. Arrays of other dtypes are returned unchanged."""
    if examples.dtype == jnp.uint16:
        return examples.astype(jnp.float32) / 32767.5 - 1
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def denormalise(examples: jax.typing.ArrayLike, bits: int = 8) -> jax.Array:
    """Images in [-1, 1] as uint8 or uint16. Values outside [-1, 1] are clipped, and NaN becomes mid-grey."""
    finite, half = jnp.nan_to_num(examples, posinf=1.0, neginf=-1.0), (2**bits - 1) / 2
    return jnp.clip(jnp.rint((finite + 1) * half), 0, 2 * half).astype(jnp.uint16 if bits == 16 else jnp.uint8)
