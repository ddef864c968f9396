"""Schedules: functions that change the value of an option during a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cosine(
    start: float | jax.Array, end: float | jax.Array, steps: int | None, option: str = "schedule=cosine"
) -> optax.Schedule:
    """Schedule along half a cosine from ``start`` to ``end`` in ``steps`` steps, then constant.

    The schedule maps a step to a value (Loshchilov and Hutter 2017, eq. 5).

    Args:
        start: value at step 0.
        end: value at step ``steps`` and at all later steps.
        steps: number of steps in which the value changes.
        option: the option that requests the schedule, for the error message.

    Raises:
        ValueError: ``steps`` is None.
    """
    if steps is None:
        raise ValueError(
            f"decay_steps=null: {option} needs the number of steps until the schedule ends. Set decay_steps to the "
            "number of training steps, e.g. decay_steps=20000."
        )
    return lambda step: end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1.0)))
