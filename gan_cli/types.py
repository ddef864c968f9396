"""The central types: what one example is, and the annotations that say which values an option takes.

The keyword-only parameters of a configurable function are a user's options. Their annotations, built from the
names below, are what ``gan_cli.config`` checks a composed configuration against, so an option's type and range
stand in one place: the signature of the function that uses it. This module imports no JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

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


class Game(Protocol):
    """Several players, each with a loss that it wants lower, all played on the same batch.

    ``players`` is the order in which they move when they move in turn; ``averaged`` names the players whose
    moving average is kept. A game that draws samples has ``decode(params, net_state, latents, labels)``, the
    ``latent_dim`` of its latents, the ``spec`` of its examples, and in ``classes`` the number of those that can be
    asked for, or None; one whose fake batch can be shared between the moves has ``fake`` (see
    ``gan_cli.strategies.alternating``); one that can tell from the parameters alone where the players stand has
    ``measure(params) -> metrics``; one of whose steps not all are alike has ``unhurried()``, the game that they are
    on average.
    """

    players: tuple[str, ...]
    averaged: tuple[str, ...]

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """Parameters and network state (batch statistics, spectral vectors) by player."""
        ...

    def loss(
        self, player: str, params: ByPlayer, net_state: ByPlayer, batch: Any, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        """The player's scalar loss, and the network state and metrics of its evaluation."""
        ...


class Strategy(NamedTuple):
    """How the players move.

    Attributes:
        batches: number of batches that one step uses.
        moves: how often a step calls each player's optimiser, by player.
        init: parameters by player -> the strategy's own state (a past gradient, slow weights).
        step: ``(state, batches, key) -> (state, metrics)``, pure; ``batches`` is a list of ``batches`` batches.
            It leaves the step count and the moving average to the engine.
    """

    batches: int
    moves: dict[str, int]
    init: Callable[[ByPlayer], Tree]
    step: Callable[[Any, list[Any], Any], tuple[Any, Metrics]]
