"""How a number changes over a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cosine(start: float | jax.Array, end: float | jax.Array, steps: int | None) -> optax.Schedule:
    """Half a cosine from ``start`` to ``end``, where it stays after ``steps`` (Loshchilov and Hutter 2017, eq. 5).

    Raises:
        ValueError: ``steps`` is None.
    """
    if steps is None:
        raise ValueError("what changes over a run needs decay_steps")
    return lambda step: end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1.0)))
