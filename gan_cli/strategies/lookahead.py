"""Lookahead."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_evaluation_params
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree, UnitFloat


def lookahead(
    game: Game,
    estimator: Estimator,
    *,
    inner: Callable[..., Strategy],
    interval: PositiveInt = 5,
    alpha: UnitFloat = 0.5,
) -> Strategy:
    """Lookahead: every ``interval`` steps, slow' = slow + alpha (x - slow) and x' = slow'.

    The slow weights of all players are a moving average of the fast weights x, which ``inner`` updates at every
    step (Chavdarova et al. 2021, algorithm 1).

    Cost: the same number of gradient evaluations as ``inner``.

    Args:
        inner: strategy that updates the fast weights at every step, e.g.
            ``strategy@strategy.inner=extragradient``.
        interval: number of steps between two updates of the slow weights.
        alpha: step size of the slow weights. With 0, every update of the slow weights resets x to the initial
            parameters. With 1, lookahead has no effect.

    Raises:
        UserError: an optimiser averages its iterates, or ``inner`` rejects an optimiser.
    """
    base = inner(game, estimator)

    def init(params: Tree) -> Tree:
        # A copy, because a donated state must not contain the same buffer twice.
        return {"inner": base.init(params), "slow": jax.tree.map(jnp.copy, params)}

    def check(optimisers: Optimisers) -> None:
        check_evaluation_params("lookahead", optimisers)
        base.check(optimisers)

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        slow = state.strategy["slow"]
        moved, metrics = base.step(optimisers, state._replace(strategy=state.strategy["inner"]), batches, key)
        back = (state.step + 1) % interval == 0
        params = jax.tree.map(lambda x, s: jnp.where(back, s + alpha * (x - s), x), moved.params, slow)
        slow = jax.tree.map(lambda x, s: jnp.where(back, x, s), params, slow)
        return moved._replace(params=params, strategy={"inner": moved.strategy, "slow": slow}), metrics

    return Strategy(base.batches, base.updates, init, step, check)
