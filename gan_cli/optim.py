"""Optimisers: one function a method, each an Optax chain with the same clipping and schedule options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax

from gan_cli.schedules import cosine
from gan_cli.types import (
    Decay,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitFloat,
    PositiveFloat,
    PositiveInt,
    Schedule,
)


class Optimiser(NamedTuple):
    """Turns the gradients of one player into updates, and declares what a strategy may rely on.

    Attributes:
        init: parameters -> state.
        update: ``(gradients, state, params) -> (updates, state)``.
        evaluation_params: ``(state, params) -> params``: the parameters to sample with, of an optimiser that takes
            gradients at other points; None: those that it updates.
        constant_lr: the learning rate where the update is exactly ``-constant_lr`` times the gradient, else None.
        projects: whether updates keep the parameters within bounds.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    evaluation_params: Callable[[Any, Any], Any] | None = None
    constant_lr: Any = None
    projects: bool = False


class Options(TypedDict, total=False):
    """What every optimiser takes.

    lr: learning rate (its peak, where a schedule changes it).
    schedule: constant, or from lr to lr_end over ``decay_steps``: linear, or cosine (Loshchilov and Hutter 2017).
    lr_end: the rate at the schedule's end and after; null is zero.
    decay_steps: steps until the schedule's end; null is train.steps as a run first starts.
    warmup_steps: steps in which the rate first rises linearly from zero.
    clip_value: bound of each gradient entry, applied before clip_norm; null is none.
    clip_norm: bound of the norm of a player's whole gradient (Pascanu et al. 2013); null is none.
    weight_clip: bound of each parameter after the move (Arjovsky et al. 2017, algorithm 1); null is none.
    """

    lr: PositiveFloat
    schedule: Schedule
    lr_end: NonNegativeFloat | None
    decay_steps: PositiveInt | None
    warmup_steps: NonNegativeInt
    clip_value: PositiveFloat | None
    clip_norm: PositiveFloat | None
    weight_clip: PositiveFloat | None


# What Adam's root is taken of is never zero: else differentiating through a move (strategy=unrolled) gives NaN for
# every parameter that has had no gradient yet. Far below eps, it changes no move.
_EPS_ROOT = 1e-30


def sgd(**options: Unpack[Options]) -> Optimiser:
    """Gradient descent: x - lr * g."""
    optimiser = _chain(optax.identity(), **options)
    unclipped = all(options.get(name) is None for name in ("clip_value", "clip_norm", "weight_clip"))
    plain = unclipped and options.get("schedule", "constant") == "constant" and not options.get("warmup_steps")
    return optimiser._replace(constant_lr=options["lr"]) if plain else optimiser


def momentum(*, momentum: Momentum = 0.9, nesterov: bool = False, **options: Unpack[Options]) -> Optimiser:
    """Heavy ball: m' = momentum * m + g; x - lr * m' (Polyak 1964; Nesterov 1983 with ``nesterov``).

    A negative momentum damps the rotation of a game (Gidel et al. 2019, negative momentum).
    """
    return _chain(optax.trace(decay=momentum, nesterov=nesterov), **options)


def adam(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b2_start: Decay | None = None,
    eps: PositiveFloat = 1e-8,
    **options: Unpack[Options],
) -> Optimiser:
    """Adam (Kingma and Ba 2015, algorithm 1).

    With ``b2_start`` the second moment's decay changes from it to b2 over ``decay_steps``, by half a cosine: while
    a game still changes fast, old gradients count less (Huang et al. 2024, R3GAN's code).
    """

    def method(b2: float | jax.Array) -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT)

    if b2_start is None:
        return _chain(method(b2), **options)
    now = cosine(b2_start, b2, options.get("decay_steps"))
    return _chain(
        optax.GradientTransformation(
            method(b2).init,
            lambda updates, state, params=None: method(now(state.count)).update(updates, state, params),
        ),
        **options,
    )


def amsgrad(
    *, b1: Decay = 0.9, b2: Decay = 0.999, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> Optimiser:
    """Adam whose second moment never falls (Reddi et al. 2018, algorithm 2)."""
    return _chain(optax.scale_by_amsgrad(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT), **options)


def adabelief(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-16,
    eps_root: NonNegativeFloat = 1e-16,
    **options: Unpack[Options],
) -> Optimiser:
    """Adam whose second moment is that of the gradient about its own mean (Zhuang et al. 2020, algorithm 2)."""
    return _chain(optax.scale_by_belief(b1=b1, b2=b2, eps=eps, eps_root=eps_root), **options)


def optimistic_adam(
    *, b1: Decay = 0.9, b2: Decay = 0.999, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> Optimiser:
    """Twice Adam's direction less the one before (Daskalakis et al. 2018, algorithm 1)."""
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT)
    return _chain(optax.chain(adam, optax.scale_by_optimistic_gradient()), **options)


def adamw(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 1e-4,
    **options: Unpack[Options],
) -> Optimiser:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""
    return _chain(
        optax.chain(
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT), optax.add_decayed_weights(weight_decay)
        ),
        **options,
    )


def rmsprop(*, decay: Decay = 0.9, eps: PositiveFloat = 1e-8, **options: Unpack[Options]) -> Optimiser:
    """Divide by a running root mean square of the gradient (Tieleman and Hinton 2012)."""
    return _chain(optax.scale_by_rms(decay=decay, eps=eps), **options)


def lion(*, b1: Decay = 0.9, b2: Decay = 0.99, **options: Unpack[Options]) -> Optimiser:
    """The sign of a momentum (Chen et al. 2023, algorithm 2); rates are a third to a tenth of Adam's."""
    return _chain(optax.scale_by_lion(b1=b1, b2=b2), **options)


def muon(*, beta: Decay = 0.95, **options: Unpack[Options]) -> Optimiser:
    """Momentum whose matrices are made orthogonal (Jordan et al. 2024); Adam for what is no matrix.

    A convolution's kernel counts as a matrix with a column for each of its last channels. Matrices move with the
    root mean square 0.2 of Adam's moves, so that one rate fits both (Liu et al. 2025, eq. 4).
    """
    method = optax.contrib.muon(
        -1.0,  # its own rate's sign is undone: ours comes after
        beta=beta,
        consistent_rms=0.2,
        adam_eps_root=_EPS_ROOT,
        muon_weight_dimension_numbers=lambda params: jax.tree.map(_as_matrix, params),
    )
    return _chain(method, **options)


def _as_matrix(kernel: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    last = kernel.ndim - 1
    return optax.contrib.MuonDimensionNumbers(tuple(range(last)), last) if last > 0 else None


def schedule_free(
    *,
    b1: OpenUnitFloat = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-8,
    **options: Unpack[Options],
) -> Optimiser:
    """Adam with an average of all its points in momentum's place (Defazio et al. 2024, algorithm 1).

    The averaged point is the one that is sampled, after ``train.ema``.

    Raises:
        ValueError: ``weight_clip``, which would bound neither that point nor what it is the average of.
    """
    if options.get("weight_clip") is not None:
        raise ValueError("weight_clip: is of the points where gradients are taken, not of those that are sampled")

    def wrap(updates: optax.GradientTransformation, rate: Any) -> optax.GradientTransformation:
        return optax.contrib.schedule_free(updates, rate, b1=b1)

    def evaluation_params(state: Any, params: Any) -> Any:
        free = optax.contrib.ScheduleFreeState
        (own,) = (s for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, free)) if isinstance(s, free))
        return optax.contrib.schedule_free_eval_params(own, params)

    method = optax.scale_by_adam(b1=0.0, b2=b2, eps=eps, eps_root=_EPS_ROOT)
    return _chain(method, wrap, **options)._replace(evaluation_params=evaluation_params)


def _chain(
    method: optax.GradientTransformation,
    wrap: Callable[[optax.GradientTransformation, Any], optax.GradientTransformation] = lambda updates, rate: (
        updates
    ),
    *,
    lr: float,
    schedule: str = "constant",
    lr_end: float | None = None,
    decay_steps: int | None = None,
    warmup_steps: int = 0,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    weight_clip: float | None = None,
) -> Optimiser:
    """Clip the gradient, apply the method, scale by the rate, ``wrap`` what that moves, project the parameters."""
    rate = _rate(lr, schedule, lr_end, decay_steps, warmup_steps)
    parts = [
        optax.clip(clip_value) if clip_value is not None else None,
        optax.clip_by_global_norm(clip_norm) if clip_norm is not None else None,
        wrap(optax.chain(method, optax.scale_by_learning_rate(rate)), rate),
        project_to_box(weight_clip) if weight_clip is not None else None,
    ]
    chain = optax.chain(*(part for part in parts if part is not None))
    return Optimiser(chain.init, chain.update, projects=weight_clip is not None)


def _rate(
    lr: float, schedule: str, lr_end: float | None, decay_steps: int | None, warmup_steps: int
) -> float | optax.Schedule:
    if schedule == "constant":
        if lr_end is not None:
            raise ValueError("lr_end: the rate does not change; choose schedule=linear or cosine")
        main = optax.constant_schedule(lr)
    else:
        if decay_steps is None:
            raise ValueError(f"schedule={schedule} needs decay_steps")
        if warmup_steps >= decay_steps:
            raise ValueError(f"warmup_steps={warmup_steps}: must be less than decay_steps={decay_steps}")
        length = decay_steps - warmup_steps
        make = optax.linear_schedule if schedule == "linear" else cosine
        main = make(lr, 0.0 if lr_end is None else lr_end, length)
    if warmup_steps:
        return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup_steps), main], [warmup_steps])
    return lr if schedule == "constant" else main


def project_to_box(bound: float) -> Optimiser:
    """Replace the update u by clip(x + u, -bound, bound) - x: the parameters stay in a box."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, x: jnp.clip(x + u, -bound, bound) - x, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
