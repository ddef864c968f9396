"""Functions that strategies share: gradients, updates of a player, and products with the Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.estimators import Estimate, Estimator, LossFunction, mean
from gan_cli.optim import Optimiser
from gan_cli.types import Batch, ByPlayer, Game, LossTerms, Metrics, Tree

Optimisers = dict[str, Optimiser]


def check_evaluation_params(strategy: str, optimisers: Optimisers) -> None:
    """Reject optimisers that average their iterates.

    A strategy that modifies parameters outside the optimiser calls this function, because the average would not
    include the modification.

    Raises:
        UserError: an optimiser has ``evaluation_params``.
    """
    for player, optimiser in optimisers.items():
        if optimiser.evaluation_params is not None:
            raise UserError(
                f"strategy={strategy}: modifies the parameters of player {player} outside the optimiser, but the "
                "optimiser of this player averages its iterates and would miss the modification. Use another "
                "optimiser, e.g. optim=adam, or strategy=alternating."
            )


def check_differentiable(strategy: str, estimator: Estimator) -> None:
    """Reject estimators whose estimate the strategy cannot differentiate.

    Raises:
        UserError: the estimator is not ``differentiable``.
    """
    if not estimator.differentiable:
        raise UserError(
            f"strategy={strategy}: differentiates the gradient, and this estimator does not support it. Set "
            "estimator=mean, or choose another strategy, e.g. strategy=extragradient."
        )


def gradient(
    game: Game,
    estimator: Estimator,
    player: str,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    fake: Tree = None,
) -> Estimate:
    """The gradient of a player's loss with respect to the player's parameters, and the metrics of the loss.

    Args:
        batch: a batch that ``game.noise`` returned.
        fake: the argument ``fake`` of ``game.loss``.
    """

    if fake is None and game.shares_fakes and reads_data(game, estimator, player):
        # A private estimator evaluates single examples, and batch normalisation needs a whole generated batch.
        fake, _ = game.fake(state.params, state.net_state, estimator.without_data(batch), key, state.step)
    # The generated examples are rows of the batch, so that an estimator can divide them.
    rows = batch if fake is None else batch | {"fake": fake}

    def loss(own: Tree, rows: Batch, key: jax.Array) -> LossTerms:
        params, batch = state.params | {player: own}, {name: x for name, x in rows.items() if name != "fake"}
        return game.loss(player, params, state.net_state, batch, key, state.step, rows.get("fake"))

    found = estimator_of(game, estimator, player).gradient(loss, state.params[player], rows, key)
    return found._replace(metrics={f"{player}/loss": found.loss} | found.metrics)


def reads_data(game: Game, estimator: Estimator, player: str) -> bool:
    """Whether the run trains privately, and the loss of the player reads the data."""
    return estimator.private is not None and (game.reads_data is None or player in game.reads_data)


def estimator_of(game: Game, estimator: Estimator, player: str) -> Estimator:
    """The estimator of a player's gradient.

    In private training, the players whose losses do not read the data have the estimator ``mean`` and a batch
    without data.
    """
    if estimator.private is None or reads_data(game, estimator, player):
        return estimator

    def gradient(loss: LossFunction, params: Tree, batch: Batch, key: jax.Array) -> Estimate:
        return mean().gradient(loss, params, estimator.without_data(batch), key)

    return Estimator(gradient)


def field(
    game: Game, estimator: Estimator, state: TrainState, batch: Batch, key: jax.Array
) -> Callable[[ByPlayer], tuple[ByPlayer, tuple[ByPlayer, Metrics]]]:
    """The vector field F as a function of all players' parameters, for ``jax.vjp(..., has_aux=True)``.

    The returned function computes the nested pair ``(gradients, (net_state, metrics))``. For each player,
    ``net_state`` contains the player's network state after the evaluation of the player's loss.
    """
    batch = game.noise(batch, key)

    def evaluate(params: ByPlayer) -> tuple[ByPlayer, tuple[ByPlayer, Metrics]]:
        gradients: ByPlayer = {}
        net_state: ByPlayer = {}
        metrics: Metrics = {}
        for player in game.players:
            found = gradient(game, estimator, player, state._replace(params=params), batch, key)
            gradients[player], net_state[player] = found.gradient, found.net_state[player]
            metrics |= found.metrics
        return gradients, (net_state, metrics)

    return evaluate


def update_player(
    state: TrainState, player: str, optimiser: Optimiser, gradient: Tree, net_state: ByPlayer
) -> tuple[TrainState, Metrics]:
    """A pair: the training state after the update of a player, and the norm of the gradient as a metric.

    The optimiser updates the player's parameters and optimiser state. The player's new network state is the
    player's entry of ``net_state``.
    """
    params = state.params[player]
    updates, opt_state = optimiser.update(gradient, state.opt_state[player], params)
    moved = apply_updates(state, player, updates, net_state)._replace(
        opt_state=state.opt_state | {player: opt_state}
    )
    return moved, {f"{player}/grad_norm": optax.tree.norm(gradient)}


def update_all(
    state: TrainState, optimisers: Optimisers, gradients: ByPlayer, net_state: ByPlayer
) -> tuple[TrainState, Metrics]:
    """A pair: the training state after ``update_player`` for every player, and the metrics of all updates."""
    metrics: Metrics = {}
    for player, own in gradients.items():
        state, more = update_player(state, player, optimisers[player], own, net_state)
        metrics |= more
    return state, metrics


def apply_updates(state: TrainState, player: str, updates: Tree, net_state: ByPlayer) -> TrainState:
    """The training state after the addition of ``updates`` to a player's parameters.

    The player's new network state is the player's entry of ``net_state``.
    """
    return state._replace(
        params=state.params | {player: optax.apply_updates(state.params[player], updates)},
        net_state=state.net_state | {player: net_state[player]},
    )


def jacobian_product(function: Callable[[Tree], Tree], at: Tree) -> Callable[[Tree], Tree]:
    """Jacobian-vector product v -> J v of ``function`` at the point ``at``, by two reverse-mode passes.

    Forward mode is not available, because the convolutions are ``custom_vjp`` functions. The vector-Jacobian
    product w -> J^T w is linear in w, so its vector-Jacobian product is v -> J v.
    """
    value, pull_back = jax.vjp(function, at)
    _, push = jax.vjp(pull_back, value)
    return lambda v: push((v,))[0]
