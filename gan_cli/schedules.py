"""Schedules: numbers that change over a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cosine(start: float | jax.Array, end: float | jax.Array, steps: int | None) -> optax.Schedule:
    """Schedule along half a cosine from ``start`` to ``end``, constant after ``steps`` steps.

    The schedule maps a step to a value (Loshchilov and Hutter 2017, eq. 5).

    Raises:
        ValueError: ``steps`` is None.
    """
    if steps is None:
        raise ValueError(
            "decay_steps=null: a value that changes over a run needs a number of steps. Set decay_steps."
        )
    return lambda step: end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1.0)))
