"""What strategies are made of: gradients, a player's move, and products with the game's Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.optim import Optimiser
from gan_cli.types import Batch, ByPlayer, Game, Metrics, Tree

Optimisers = dict[str, Optimiser]


def check_evaluation_params(strategy: str, optimisers: Optimisers) -> None:
    """Refuse optimisers that keep points of their own: the strategy puts players where no move of theirs led.

    Raises:
        UserError: there is one.
    """
    for player, optimiser in optimisers.items():
        if optimiser.evaluation_params is not None:
            raise UserError(
                f"strategy={strategy}: moves the {player} to points that its optimiser, which averages its own, "
                "does not know of: optim=adam, or strategy=alternating."
            )


def gradient(
    game: Game, player: str, state: TrainState, batch: Batch, key: jax.Array, **shared: Any
) -> tuple[Tree, ByPlayer, Metrics]:
    """The gradient of one player's loss in its own parameters, its evaluation's network state and metrics."""

    def loss(own: Tree) -> Any:
        params = state.params | {player: own}
        return game.loss(player, params, state.net_state, batch, key, state.step, **shared)

    (value, (net_state, metrics)), slope = jax.value_and_grad(loss, has_aux=True)(state.params[player])
    return slope, net_state, {f"{player}/loss": value} | metrics


def field(
    game: Game, state: TrainState, batch: Batch, key: jax.Array
) -> Callable[[ByPlayer], tuple[ByPlayer, tuple[ByPlayer, Metrics]]]:
    """F as a function of all players' parameters, for use with ``jax.vjp(..., has_aux=True)``.

    The second of its results is what a move commits: each player's own network state, and all metrics.
    """

    def evaluate(params: ByPlayer) -> tuple[ByPlayer, tuple[ByPlayer, Metrics]]:
        gradients: ByPlayer = {}
        net_state: ByPlayer = {}
        metrics: Metrics = {}
        for player in game.players:
            gradients[player], left, found = gradient(game, player, state._replace(params=params), batch, key)
            net_state[player] = left[player]
            metrics |= found
        return gradients, (net_state, metrics)

    return evaluate


def update_player(
    state: TrainState, player: str, optimiser: Optimiser, gradient: Tree, net_state: ByPlayer
) -> tuple[TrainState, Metrics]:
    """Let a player's optimiser act on a gradient, and commit the player's network state of its evaluation."""
    params = state.params[player]
    updates, opt_state = optimiser.update(gradient, state.opt_state[player], params)
    moved = apply_updates(state, player, updates, net_state)._replace(
        opt_state=state.opt_state | {player: opt_state}
    )
    return moved, {f"{player}/grad_norm": optax.global_norm(gradient)}


def update_all(
    state: TrainState, optimisers: Optimisers, gradients: ByPlayer, net_state: ByPlayer
) -> tuple[TrainState, Metrics]:
    """A move of every player."""
    metrics: Metrics = {}
    for player, own in gradients.items():
        state, more = update_player(state, player, optimisers[player], own, net_state)
        metrics |= more
    return state, metrics


def apply_updates(state: TrainState, player: str, updates: Tree, net_state: ByPlayer) -> TrainState:
    """Add ``updates`` to a player's parameters, and commit its network state."""
    return state._replace(
        params=state.params | {player: optax.apply_updates(state.params[player], updates)},
        net_state=state.net_state | {player: net_state[player]},
    )


def jacobian_product(function: Callable[[Tree], Tree], at: Tree) -> Callable[[Tree], Tree]:
    """v -> (the derivative of ``function`` at ``at``) v, as reverse over reverse: there is no forward mode.

    Convolutions here are ``custom_vjp``, which has none. The pull-back w -> J^T w is linear, so that its own
    pull-back is v -> J v.
    """
    value, pull_back = jax.vjp(function, at)
    _, push = jax.vjp(pull_back, value)
    return lambda v: push((v,))[0]
