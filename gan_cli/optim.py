"""Optimisers: one function a method, each an Optax chain with the same clipping and schedule options."""

from __future__ import annotations

from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax

from gan_cli.types import (
    Decay,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Schedule,
)


class Options(TypedDict, total=False):
    """What every optimiser takes.

    lr: learning rate (its peak, where a schedule changes it).
    schedule: constant, or from lr to zero over ``decay_steps``: linear, or cosine (Loshchilov and Hutter 2017).
    decay_steps: steps until the schedule reaches zero; null is train.steps as a run first starts.
    warmup_steps: steps in which the rate first rises linearly from zero.
    clip_value: bound of each gradient entry, applied before clip_norm; null is none.
    clip_norm: bound of the norm of a player's whole gradient (Pascanu et al. 2013); null is none.
    weight_clip: bound of each parameter after the move (Arjovsky et al. 2017, algorithm 1); null is none.
    """

    lr: PositiveFloat
    schedule: Schedule
    decay_steps: PositiveInt | None
    warmup_steps: NonNegativeInt
    clip_value: PositiveFloat | None
    clip_norm: PositiveFloat | None
    weight_clip: PositiveFloat | None


def sgd(**options: Unpack[Options]) -> optax.GradientTransformation:
    """Gradient descent: x - lr * g."""
    return _chain(optax.identity(), **options)


def momentum(
    *, momentum: Momentum = 0.9, nesterov: bool = False, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Heavy ball: m' = momentum * m + g; x - lr * m' (Polyak 1964; Nesterov 1983 with ``nesterov``)."""
    return _chain(optax.trace(decay=momentum, nesterov=nesterov), **options)


def adam(
    *, b1: Decay = 0.9, b2: Decay = 0.999, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, algorithm 1)."""
    return _chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), **options)


def adamw(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 1e-4,
    **options: Unpack[Options],
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""
    return _chain(
        optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), optax.add_decayed_weights(weight_decay)),
        **options,
    )


def rmsprop(
    *, decay: Decay = 0.9, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Divide by a running root mean square of the gradient (Tieleman and Hinton 2012)."""
    return _chain(optax.scale_by_rms(decay=decay, eps=eps), **options)


def _chain(
    method: optax.GradientTransformation,
    *,
    lr: float,
    schedule: str = "constant",
    decay_steps: int | None = None,
    warmup_steps: int = 0,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    weight_clip: float | None = None,
) -> optax.GradientTransformation:
    """Clip the gradient, apply the method, scale by the rate, project the parameters."""
    parts = [
        optax.clip(clip_value) if clip_value is not None else None,
        optax.clip_by_global_norm(clip_norm) if clip_norm is not None else None,
        method,
        optax.scale_by_learning_rate(_rate(lr, schedule, decay_steps, warmup_steps)),
        project_to_box(weight_clip) if weight_clip is not None else None,
    ]
    return optax.chain(*(part for part in parts if part is not None))


def _rate(lr: float, schedule: str, decay_steps: int | None, warmup_steps: int) -> float | optax.Schedule:
    if schedule == "constant":
        main = optax.constant_schedule(lr)
    else:
        if decay_steps is None:
            raise ValueError(f"schedule={schedule} needs decay_steps")
        length = max(decay_steps - warmup_steps, 1)
        if schedule == "linear":
            main = optax.linear_schedule(lr, 0.0, length)
        else:
            main = optax.cosine_decay_schedule(lr, length)
    if warmup_steps:
        return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup_steps), main], [warmup_steps])
    return lr if schedule == "constant" else main


def project_to_box(bound: float) -> optax.GradientTransformation:
    """Replace the update u by clip(x + u, -bound, bound) - x: the parameters stay in a box."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, x: jnp.clip(x + u, -bound, bound) - x, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
