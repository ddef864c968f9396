"""Images between the integers of a file, 0 to 255, and the floats that networks see, -1 to 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def normalise(examples: Any) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; anything else as it is."""
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def denormalise(examples: Any) -> jax.Array:
    """Images in [-1, 1] as uint8, what lies outside cut off, and what is no number grey."""
    finite = jnp.nan_to_num(examples, posinf=1.0, neginf=-1.0)
    return jnp.clip(jnp.rint((finite + 1) * 127.5), 0, 255).astype(jnp.uint8)
