"""Optimisers: one function per method, built on Optax, with shared options for clipping and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax

from gan_cli.moments import scale_by_adam, scale_by_amsgrad, scale_by_belief
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

Rate: TypeAlias = float | optax.Schedule  # a learning rate, or a function from the number of updates to the rate


class Optimiser(NamedTuple):
    """An optimiser of one player: the rule that turns gradients into parameter updates.

    Attributes:
        init: ``params -> state``.
        update: ``(gradients, state, params) -> (updates, state)``.
        evaluation_params: ``(state, params) -> params``, returns the parameters for sampling and evaluation. None
            if the optimiser updates these parameters directly.
        constant_lr: learning rate of plain gradient descent, where every update is ``-constant_lr`` times the
            gradient. None for all other optimisers.
        projects: whether the optimiser clips the parameters after each update (``weight_clip``).
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    evaluation_params: Callable[[Tree, Tree], Tree] | None = None
    constant_lr: float | jax.Array | None = None
    projects: bool = False


class Options(TypedDict, total=False):
    """The options that all optimisers share.

    Args:
        lr: learning rate at the end of the warm-up, which is the initial value of the schedule.
        schedule: change of the learning rate after the warm-up. With ``constant``, the learning rate stays at lr.
            With ``linear``, the rate changes from lr to lr_end along a straight line. With ``constant_linear``, the
            rate stays at lr until the middle of decay_steps, and then changes to lr_end along a straight line
            (Zhu et al. 2017, appendix 7.1). With ``cosine``, the rate changes from lr to lr_end along half a cosine
            (Loshchilov and Hutter 2017).
        lr_end: learning rate at the end of the schedule and at all later steps. null means zero.
        decay_steps: number of steps until the schedule ends, including warmup_steps. If null, the number is the
            value of train.steps at the first start of the run.
        warmup_steps: number of steps at the start of training during which the learning rate increases linearly
            from zero to lr.
        clip_value: maximum absolute value of each gradient entry, enforced before clip_norm. null means no maximum.
        clip_norm: maximum Euclidean norm of the gradient with respect to all parameters of a player (Pascanu et al.
            2013). null means no maximum.
        weight_clip: maximum absolute value of each parameter, enforced after each update (Arjovsky et al. 2017,
            algorithm 1). null means no maximum.
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
    """Gradient descent: x' = x - lr * g, where g is the gradient."""
    optimiser = chain(optax.identity(), **options)
    unclipped = all(options.get(name) is None for name in ("clip_value", "clip_norm", "weight_clip"))
    plain = unclipped and options.get("schedule", "constant") == "constant" and not options.get("warmup_steps")
    return optimiser._replace(constant_lr=options["lr"]) if plain else optimiser


def momentum(*, momentum: Momentum = 0.9, nesterov: bool = False, **options: Unpack[Options]) -> Optimiser:
    """Gradient descent with momentum: m' = momentum * m + g, x' = x - lr * m'.

    g is the gradient. Without ``nesterov``, the method is the heavy-ball method (Polyak 1964). With ``nesterov``,
    the method is Nesterov's method (1983), whose second formula is x' = x - lr * (g + momentum * m').

    Args:
        momentum: factor of the old momentum m. A negative value damps the rotation of a game (Gidel et al. 2019,
            negative momentum).
        nesterov: whether to use Nesterov's method.
    """
    return chain(optax.trace(decay=momentum, nesterov=nesterov), **options)


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
        b2_start: initial decay rate of the second moment. The rate then changes from b2_start to b2 along half a
            cosine in decay_steps steps. A value below b2 gives old gradients less weight early in training, when
            the game changes fast (Huang et al. 2024, R3GAN's code). If null, the decay rate is always b2.
        eps: constant added to the denominator for numerical stability.
    """

    def method(b2: float | jax.Array) -> optax.GradientTransformation:
        return scale_by_adam(b1, b2, eps, _EPS_ROOT)

    if b2_start is None:
        return chain(method(b2), **options)
    now = cosine(b2_start, b2, options.get("decay_steps"), "b2_start")
    return chain(
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
    return chain(scale_by_amsgrad(b1, b2, eps, _EPS_ROOT), **options)


def adabelief(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: PositiveFloat = 1e-16,
    eps_root: NonNegativeFloat = 1e-16,
    **options: Unpack[Options],
) -> Optimiser:
    """AdaBelief: Adam whose second moment averages squared deviations from the running mean gradient.

    Zhuang et al. 2020, algorithm 2.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared deviation of the gradient from the
            first moment.
        eps: constant added to the denominator for numerical stability.
        eps_root: constant added to the second moment at every update for numerical stability.
    """
    return chain(scale_by_belief(b1, b2, eps, eps_root), **options)


def optimistic_adam(
    *, b1: Decay = 0.9, b2: Decay = 0.999, eps: PositiveFloat = 1e-8, **options: Unpack[Options]
) -> Optimiser:
    """Optimistic Adam: x' = x - lr * (2 u - u_before), where u is Adam's update direction.

    u_before is Adam's update direction at the previous step. Daskalakis et al. 2018, algorithm 1.

    Args:
        b1: decay rate of the first moment, the running mean of the gradient.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.
    """
    adam = scale_by_adam(b1, b2, eps, _EPS_ROOT)
    return chain(optax.chain(adam, optax.scale_by_optimistic_gradient()), **options)


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
        weight_decay: coefficient of the decay. Each step subtracts lr * weight_decay * x.
    """
    return chain(
        optax.chain(scale_by_adam(b1, b2, eps, _EPS_ROOT), optax.add_decayed_weights(weight_decay)),
        **options,
    )


def rmsprop(*, decay: Decay = 0.9, eps: PositiveFloat = 1e-8, **options: Unpack[Options]) -> Optimiser:
    """RMSProp: x' = x - lr * g / sqrt(v + eps), where v is the running mean of the squared gradient.

    Tieleman and Hinton 2012.

    Args:
        decay: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added under the square root for numerical stability.
    """
    return chain(optax.scale_by_rms(decay=decay, eps=eps), **options)


def lion(*, b1: Decay = 0.9, b2: Decay = 0.99, **options: Unpack[Options]) -> Optimiser:
    """Lion: x' = x - lr * sign(b1 * m + (1 - b1) * g), m' = b2 * m + (1 - b2) * g.

    m is the momentum and g is the gradient (Chen et al. 2023, algorithm 2). Suitable learning rates are a third to
    a tenth of Adam's learning rate.

    Args:
        b1: weight of the momentum m in the argument of the sign function.
        b2: decay rate of the momentum m.
    """
    return chain(optax.scale_by_lion(b1=b1, b2=b2), **options)


def muon(*, beta: Decay = 0.95, **options: Unpack[Options]) -> Optimiser:
    """Muon: orthogonalised momentum for matrices, Adam for all other parameters.

    Jordan et al. 2024. The kernel of a convolution counts as a matrix with one column per output channel. The
    updates of matrices are scaled to a root mean square of 0.2, which is typical of Adam's updates, so that
    matrices and all other parameters can share one learning rate (Liu et al. 2025, eq. 4).

    Args:
        beta: decay rate of the momentum of matrices.
    """
    method = optax.contrib.muon(
        -1.0,  # cancels the sign that optax.contrib.muon applies, because ``chain`` applies the learning rate
        beta=beta,
        consistent_rms=0.2,
        adam_eps_root=_EPS_ROOT,
        muon_weight_dimension_numbers=lambda params: jax.tree.map(_as_matrix, params),
    )
    return chain(method, **options)


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
    """Schedule-free Adam: the parameters for sampling are a running average x of Adam's iterates z.

    Defazio et al. 2024, algorithm 1. The update of z is Adam's update without momentum. Gradients are evaluated at
    y = (1 - b1) z + b1 x. Sampling and evaluation use x. The moving average of ``train.ema`` is computed from x.

    Args:
        b1: weight of the average x in the point y at which gradients are evaluated.
        b2: decay rate of the second moment, the running mean of the squared gradient.
        eps: constant added to the denominator for numerical stability.

    Raises:
        ValueError: ``weight_clip`` is set. The option would bound y but not x.
    """
    if options.get("weight_clip") is not None:
        raise ValueError(
            "weight_clip: schedule-free Adam does not support this option, because the option would not bound the "
            "averaged parameters that are sampled. Set weight_clip=null, or choose another optimiser, e.g. "
            "optim=rmsprop."
        )

    def wrap(updates: optax.GradientTransformation, rate: Rate) -> optax.GradientTransformation:
        return optax.contrib.schedule_free(updates, rate, b1=b1)

    def evaluation_params(state: Tree, params: Tree) -> Tree:
        free = optax.contrib.ScheduleFreeState
        (own,) = (s for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, free)) if isinstance(s, free))
        return optax.contrib.schedule_free_eval_params(own, params)

    method = scale_by_adam(0.0, b2, eps, _EPS_ROOT)
    return chain(method, wrap, **options)._replace(evaluation_params=evaluation_params)


def chain(
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
    """Build an optimiser from an Optax method and the options that all optimisers share (see ``Options``).

    Each update clips the gradient, applies ``method``, multiplies by the learning rate, applies ``wrap`` and clips
    the parameters, in this order.

    Args:
        method: transformation of the gradient into an update direction, without a learning rate.
        wrap: ``(transformation, learning rate) -> transformation``, for a method that modifies updates
            after the multiplication by the learning rate.
    """
    rate = _rate(lr, schedule, lr_end, decay_steps, warmup_steps)
    parts = [
        optax.clip(clip_value) if clip_value is not None else None,
        optax.clip_by_global_norm(clip_norm) if clip_norm is not None else None,
        wrap(optax.chain(method, optax.scale_by_learning_rate(rate)), rate),
        project_to_box(weight_clip) if weight_clip is not None else None,
    ]
    whole = optax.chain(*(part for part in parts if part is not None))
    return Optimiser(whole.init, whole.update, projects=weight_clip is not None)


def _rate(lr: float, schedule: str, lr_end: float | None, decay_steps: int | None, warmup_steps: int) -> Rate:
    if schedule == "constant":
        if lr_end is not None:
            raise ValueError(
                "lr_end: the option has no effect with schedule=constant. Choose another "
                "schedule, e.g. schedule=linear, or set lr_end=null to keep a constant learning rate."
            )
        main = optax.constant_schedule(lr)
    else:
        if decay_steps is None:
            raise ValueError(
                f"decay_steps=null: schedule={schedule} needs the number of steps after which the learning rate "
                "reaches lr_end. Set decay_steps to the number of training steps, e.g. decay_steps=20000."
            )
        if warmup_steps >= decay_steps:
            raise ValueError(
                f"warmup_steps={warmup_steps}: must be less than decay_steps={decay_steps}, because decay_steps "
                "includes the warm-up. Reduce warmup_steps or increase decay_steps."
            )
        length, end = decay_steps - warmup_steps, 0.0 if lr_end is None else lr_end
        if schedule == "constant_linear":
            flat = max(decay_steps // 2 - warmup_steps, 0)
            falling = optax.linear_schedule(lr, end, length - flat)
            main = optax.join_schedules([optax.constant_schedule(lr), falling], [flat])
        else:
            make = optax.linear_schedule if schedule == "linear" else cosine
            main = make(lr, end, length)
    if warmup_steps:
        return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup_steps), main], [warmup_steps])
    return lr if schedule == "constant" else main


def project_to_box(bound: float) -> optax.GradientTransformation:
    """Transformation that clips the parameters after each update: u' = clip(x + u, -bound, bound) - x.

    The parameters are x, the update is u, and the corrected update is u'.
    """

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(lambda u, x: jnp.clip(x + u, -bound, bound) - x, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
