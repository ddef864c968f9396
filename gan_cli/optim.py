"""Optimisers: one function per method, each an Optax chain with the same options for clipping and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypedDict, Unpack

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
    Tree,
)

Rate: TypeAlias = float | optax.Schedule  # a learning rate, or a function of the optimiser's number of updates


class Optimiser(NamedTuple):
    """An optimiser of one player: it turns gradients into updates and declares properties for strategies.

    Attributes:
        init: ``params -> state``.
        update: ``(gradients, state, params) -> (updates, state)``.
        evaluation_params: ``(state, params) -> params``: the parameters for sampling and evaluation, if they differ
            from the parameters that the optimiser updates. None: they are the same.
        constant_lr: the learning rate if every update equals ``-constant_lr`` times the gradient, else None.
        projects: whether updates keep the parameters within bounds.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    evaluation_params: Callable[[Tree, Tree], Tree] | None = None
    constant_lr: float | jax.Array | None = None
    projects: bool = False


class Options(TypedDict, total=False):
    """The options that all optimisers share.

    Args:
        lr: learning rate; its peak value if a schedule changes it.
        schedule: ``constant``: the learning rate stays at lr. ``linear`` and ``cosine``: the learning rate changes
            from lr to lr_end, along a line or half a cosine (Loshchilov and Hutter 2017).
        lr_end: learning rate at the end of the schedule and after it. null: zero.
        decay_steps: number of steps until the schedule ends, including warmup_steps. null: train.steps of the run's
            first start.
        warmup_steps: number of steps in which the learning rate first increases linearly from zero to lr.
        clip_value: bound of the absolute value of each gradient entry, applied before clip_norm. null: no bound.
        clip_norm: bound of the norm of a player's whole gradient (Pascanu et al. 2013). null: no bound.
        weight_clip: bound of the absolute value of each parameter, applied after each update (Arjovsky et al. 2017,
            algorithm 1). null: no bound.
    """

    lr: PositiveFloat
    schedule: Schedule
    lr_end: NonNegativeFloat | None
    decay_steps: PositiveInt | None
    warmup_steps: NonNegativeInt
    clip_value: PositiveFloat | None
    clip_norm: PositiveFloat | None
    weight_clip: PositiveFloat | None


# Added under Adam's square root, because differentiating through an update (strategy=unrolled) would otherwise give
# NaN for every parameter whose gradients have all been zero. The value is too small to change an update.
_EPS_ROOT = 1e-30


def sgd(**options: Unpack[Options]) -> Optimiser:
    """Gradient descent: x' = x - lr * g."""
    optimiser = _chain(optax.identity(), **options)
    unclipped = all(options.get(name) is None for name in ("clip_value", "clip_norm", "weight_clip"))
    plain = unclipped and options.get("schedule", "constant") == "constant" and not options.get("warmup_steps")
    return optimiser._replace(constant_lr=options["lr"]) if plain else optimiser


def momentum(*, momentum: Momentum = 0.9, nesterov: bool = False, **options: Unpack[Options]) -> Optimiser:
    """Gradient descent with momentum: m' = momentum * m + g, x' = x - lr * m'.

    The heavy-ball method (Polyak 1964), or with ``nesterov`` Nesterov's method (1983):
    x' = x - lr * (g + momentum * m').

    Args:
        momentum: factor of the previous m. A negative value damps the rotation of a game (Gidel et al. 2019,
            negative momentum).
        nesterov: whether to use Nesterov's method.
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
    """Adam: x' = x - lr * m / (sqrt(v) + eps), with bias-corrected running moments m and v.

    Kingma and Ba 2015, algorithm 1.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        b2_start: initial value of b2, which reaches b2 after decay_steps along half a cosine. A smaller value gives
            old gradients less weight while the game still changes fast (Huang et al. 2024, R3GAN's code). null: b2
            is constant.
        eps: constant added to the denominator for numerical stability.
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
    """AMSGrad: Adam with the maximum of all second moments so far in the denominator.

    Reddi et al. 2018, algorithm 2.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.
    """
    return _chain(optax.scale_by_amsgrad(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT), **options)


def adabelief(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-16,
    eps_root: NonNegativeFloat = 1e-16,
    **options: Unpack[Options],
) -> Optimiser:
    """AdaBelief: Adam with the squared deviation of the gradient from its running mean as second moment.

    Zhuang et al. 2020, algorithm 2.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared deviation.
        eps: constant added to the denominator for numerical stability.
        eps_root: constant added to the second moment at every update for numerical stability.
    """
    return _chain(optax.scale_by_belief(b1=b1, b2=b2, eps=eps, eps_root=eps_root), **options)


def optimistic_adam(
    *, b1: Decay = 0.9, b2: Decay = 0.999, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> Optimiser:
    """Optimistic Adam: x' = x - lr * (2 u - u_before), where u is the direction of Adam.

    Daskalakis et al. 2018, algorithm 1.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.
    """
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
    """AdamW: Adam with decoupled weight decay, x' = x - lr * (m / (sqrt(v) + eps) + weight_decay * x).

    m and v are the bias-corrected running moments of Adam. Loshchilov and Hutter 2019, algorithm 2.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.
        weight_decay: factor of the decay term weight_decay * x, which is multiplied by lr.
    """
    return _chain(
        optax.chain(
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=_EPS_ROOT), optax.add_decayed_weights(weight_decay)
        ),
        **options,
    )


def rmsprop(*, decay: Decay = 0.9, eps: PositiveFloat = 1e-8, **options: Unpack[Options]) -> Optimiser:
    """RMSProp: x' = x - lr * g / sqrt(v + eps), where v is the running mean of the squared gradient.

    Tieleman and Hinton 2012.

    Args:
        decay: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added under the square root for numerical stability.
    """
    return _chain(optax.scale_by_rms(decay=decay, eps=eps), **options)


def lion(*, b1: Decay = 0.9, b2: Decay = 0.99, **options: Unpack[Options]) -> Optimiser:
    """Lion: x' = x - lr * sign(b1 * m + (1 - b1) * g), m' = b2 * m + (1 - b2) * g.

    Chen et al. 2023, algorithm 2. Suitable learning rates are a third to a tenth of Adam's.

    Args:
        b1: weight of the momentum m in the sign.
        b2: decay rate of the momentum m.
    """
    return _chain(optax.scale_by_lion(b1=b1, b2=b2), **options)


def muon(*, beta: Decay = 0.95, **options: Unpack[Options]) -> Optimiser:
    """Muon: orthogonalised momentum for matrices, Adam for all other parameters.

    Jordan et al. 2024. The kernel of a convolution is a matrix with one column per output channel. The updates of
    matrices are scaled to the root mean square 0.2 that is typical of Adam, so that one learning rate fits both
    (Liu et al. 2025, eq. 4).

    Args:
        beta: decay rate of the momentum of matrices.
    """
    method = optax.contrib.muon(
        -1.0,  # cancels the sign that optax.contrib.muon applies, because _chain applies the learning rate
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
    """Schedule-free Adam: Adam without momentum updates z, and samples use x, the average of all z.

    Defazio et al. 2024, algorithm 1. Gradients are evaluated at y = (1 - b1) z + b1 x. Sampling and evaluation use
    the averaged point x, to which ``train.ema`` then applies its moving average.

    Args:
        b1: weight of the average x in the point y at which gradients are evaluated.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.

    Raises:
        ValueError: ``weight_clip`` is set: it would bound y, but neither x nor z.
    """
    if options.get("weight_clip") is not None:
        raise ValueError(
            "weight_clip: bounds the point at which gradients are evaluated, but not the averaged point that is "
            "sampled. Set weight_clip=null, or choose another optimiser."
        )

    def wrap(updates: optax.GradientTransformation, rate: Rate) -> optax.GradientTransformation:
        return optax.contrib.schedule_free(updates, rate, b1=b1)

    def evaluation_params(state: Tree, params: Tree) -> Tree:
        free = optax.contrib.ScheduleFreeState
        (own,) = (s for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, free)) if isinstance(s, free))
        return optax.contrib.schedule_free_eval_params(own, params)

    method = optax.scale_by_adam(b1=0.0, b2=b2, eps=eps, eps_root=_EPS_ROOT)
    return _chain(method, wrap, **options)._replace(evaluation_params=evaluation_params)


def _chain(
    method: optax.GradientTransformation,
    wrap: Callable[[optax.GradientTransformation, Rate], optax.GradientTransformation] = lambda updates, rate: (
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
    """Chain: clip the gradient, apply the method, scale by the learning rate, ``wrap``, project the parameters."""
    rate = _rate(lr, schedule, lr_end, decay_steps, warmup_steps)
    parts = [
        optax.clip(clip_value) if clip_value is not None else None,
        optax.clip_by_global_norm(clip_norm) if clip_norm is not None else None,
        wrap(optax.chain(method, optax.scale_by_learning_rate(rate)), rate),
        project_to_box(weight_clip) if weight_clip is not None else None,
    ]
    chain = optax.chain(*(part for part in parts if part is not None))
    return Optimiser(chain.init, chain.update, projects=weight_clip is not None)


def _rate(lr: float, schedule: str, lr_end: float | None, decay_steps: int | None, warmup_steps: int) -> Rate:
    if schedule == "constant":
        if lr_end is not None:
            raise ValueError(
                "lr_end: has no effect with schedule=constant. Choose schedule=linear or cosine, "
                "or set lr_end=null."
            )
        main = optax.constant_schedule(lr)
    else:
        if decay_steps is None:
            raise ValueError(f"schedule={schedule}: needs a number of steps. Set decay_steps.")
        if warmup_steps >= decay_steps:
            raise ValueError(
                f"warmup_steps={warmup_steps}: must be less than decay_steps={decay_steps}. Reduce warmup_steps or "
                "increase decay_steps."
            )
        length = decay_steps - warmup_steps
        make = optax.linear_schedule if schedule == "linear" else cosine
        main = make(lr, 0.0 if lr_end is None else lr_end, length)
    if warmup_steps:
        return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup_steps), main], [warmup_steps])
    return lr if schedule == "constant" else main


def project_to_box(bound: float) -> optax.GradientTransformation:
    """Projection of the parameters to [-bound, bound]: u' = clip(x + u, -bound, bound) - x."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(lambda u, x: jnp.clip(x + u, -bound, bound) - x, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
