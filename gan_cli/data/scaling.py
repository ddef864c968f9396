"""Conversion of images between uint8 values (0 to 255, in files) and floats (-1 to 1, in networks)."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def normalise(examples: Array) -> Array:
    """uint8 images as float32 in [-1, 1]. Arrays of other dtypes are returned unchanged."""
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def denormalise(examples: jax.typing.ArrayLike) -> jax.Array:
    """Images in [-1, 1] as uint8. Values outside [-1, 1] are clipped, and NaN becomes mid-grey."""
    finite = jnp.nan_to_num(examples, posinf=1.0, neginf=-1.0)
    return jnp.clip(jnp.rint((finite + 1) * 127.5), 0, 255).astype(jnp.uint8)
