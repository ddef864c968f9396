"""The central types: what one example is, and the annotations that say which values an option takes.

The keyword-only parameters of a configurable function are a user's options. Their annotations, built from the
names below, are what ``gan_cli.config`` checks a composed configuration against, so an option's type and range
stand in one place: the signature of the function that uses it. This module imports no JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Range:
    """Bounds of a number: ``ge`` and ``le`` inclusive, ``gt`` and ``lt`` exclusive."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def problem(self, value: float) -> str | None:
        """What is wrong with ``value``, in words, or None."""
        if self.ge is not None and not value >= self.ge:
            return f"must be at least {self.ge:g}"
        if self.gt is not None and not value > self.gt:
            return f"must be greater than {self.gt:g}"
        if self.le is not None and not value <= self.le:
            return f"must be at most {self.le:g}"
        if self.lt is not None and not value < self.lt:
            return f"must be less than {self.lt:g}"
        return None


PositiveInt = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
Seed = Annotated[int, Range(ge=0, lt=2**32)]
PackSize = Annotated[int, Range(ge=2)]
PositiveFloat = Annotated[float, Range(gt=0)]
NonNegativeFloat = Annotated[float, Range(ge=0)]
UnitFloat = Annotated[float, Range(ge=0, le=1)]
OpenUnitFloat = Annotated[float, Range(gt=0, lt=1)]
Smoothing = Annotated[float, Range(ge=0, lt=0.5)]
Decay = Annotated[float, Range(ge=0, lt=1)]  # a moving average's memory, a moment's decay, a dropout rate
Momentum = Annotated[float, Range(gt=-1, lt=1)]
Norm = Literal["none", "batch", "layer", "spectral"]
Conditional = Literal["none", "concat", "projection", "acgan"]
MinibatchKind = Literal["none", "std", "discrimination"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]
Divergence = Literal["kl", "reverse_kl", "pearson", "squared_hellinger", "jensen_shannon"]
Digits = Literal["mnist5k", "mnist"]
OnError = Literal["skip", "refuse"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Spec:
    """What one example of a data set is; models are built from it.

    Attributes:
        shape: shape of one example as the networks see it: ``(height, width, channels)`` or ``(features,)``.
        low: smallest value, or None where values are unbounded.
        high: largest value, or None where values are unbounded.
        num_classes: number of labels, or None where examples have none.
    """

    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    num_classes: int | None = None

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def size(self) -> int:
        """Number of values in one example."""
        size = 1
        for side in self.shape:
            size *= side
        return size


class Batch(NamedTuple):
    """What every player of a step sees: examples ``[batch, *spec.shape]`` and labels ``[batch]`` or None."""

    examples: jax.Array
    labels: jax.Array | None = None


Tree = Any  # a pytree of arrays
ByPlayer = dict[str, Any]  # a pytree for each player's name
Metrics = dict[str, Any]  # scalars by name, "<player>/loss" and so on


class Game:
    """Several players, each with a loss that it minimises, all played on the same batch.

    A game implements ``init`` and ``loss``, and declares in these attributes what else it can do. The engine, the
    strategies and the views rely on nothing else.

    Attributes:
        players: the order in which the players move when they move in turn.
        averaged: the players whose exponential moving average is kept.
        spec: what one example is; None of a game without data.
        samples: whether ``decode`` turns latents into examples.
        latent_dim: number of values in a latent.
        classes: number of classes that ``decode`` can be asked for, or None.
        pack: how many examples are judged together; ``train.batch_size`` must be a multiple of it.
        shares_fakes: whether ``fake`` gives a generated batch that serves the losses of all players.
        has_equilibrium: whether ``distance`` tells how far the parameters are from a known equilibrium.
    """

    players: tuple[str, ...]
    averaged: tuple[str, ...] = ()
    spec: Spec | None = None
    samples: bool = False
    latent_dim: int = 0
    classes: int | None = None
    pack: int = 1
    shares_fakes: bool = False
    has_equilibrium: bool = False

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """Parameters and network state (batch statistics, spectral vectors) by player."""
        raise NotImplementedError

    def loss(
        self, player: str, params: ByPlayer, net_state: ByPlayer, batch: Any, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        """The player's scalar loss, and the network state and metrics of its evaluation.

        Where ``shares_fakes``, it also takes ``fake``: the batch that ``fake`` generates from the same arguments.
        """
        raise NotImplementedError

    def fake(self, params: ByPlayer, net_state: ByPlayer, batch: Any, key: jax.Array) -> tuple[jax.Array, ByPlayer]:
        """A generated batch, and the network state that the generator's pass leaves; where ``shares_fakes``."""
        raise NotImplementedError

    def decode(
        self, params: ByPlayer, net_state: ByPlayer, latents: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """``[n, latent_dim]`` latents, and labels ``[n]`` where there are ``classes``, -> ``[n, *spec.shape]``
        examples; where ``samples``."""
        raise NotImplementedError

    def distance(self, params: ByPlayer) -> Metrics:
        """``distance`` to the equilibrium, and the positions ``x`` and ``y``; where ``has_equilibrium``."""
        raise NotImplementedError

    def with_eager_penalties(self) -> Game:
        """The same game with every lazy penalty applied at every step: the average of its steps."""
        return self


class Strategy(NamedTuple):
    """How the players' updates are combined into a step.

    Attributes:
        batches: number of batches that one step uses.
        updates: how often a step calls each player's optimiser, by player.
        init: parameters by player -> the strategy's own state (a past gradient, slow weights).
        step: ``(optimisers, state, batches, key) -> (state, metrics)``, pure; ``batches`` is a list of ``batches``
            batches. The engine advances the step count and the moving average.
        check: raises a UserError where these optimisers do not fit the strategy.
    """

    batches: int
    updates: dict[str, int]
    init: Callable[[ByPlayer], Tree]
    step: Callable[[Any, Any, list[Any], Any], tuple[Any, Metrics]]
    check: Callable[[Any], None] = lambda optimisers: None
