"""Exponential moving average of the players' parameters, for sampling and evaluation."""

from __future__ import annotations

import jax

from gan_cli.engine.state import TrainSetup, TrainState
from gan_cli.types import Tree


def advance(setup: TrainSetup, before: TrainState, state: TrainState, ema: float) -> TrainState:
    """``state`` with updated moving averages: ``average = ema * average + (1 - ema) * new``.

    The network state (batch statistics, spectral vectors) is averaged too, because the statistics of the latest
    parameters do not fit the averaged parameters.

    Args:
        setup: the game, strategy and optimisers.
        before: the state before the step, with the averages to update.
        state: the state after the step.
        ema: decay of the average, in [0, 1).
    """
    return state._replace(
        average={p: _mean(ema, mean, _evaluated(setup, state, p)) for p, mean in before.average.items()},
        average_state={p: _mean(ema, mean, state.net_state[p]) for p, mean in before.average_state.items()},
    )


def _mean(ema: float, mean: Tree, new: Tree) -> Tree:
    return jax.tree.map(lambda m, n: ema * m + (1 - ema) * n, mean, new)


def _evaluated(setup: TrainSetup, state: TrainState, player: str) -> Tree:
    """The parameters of ``player`` that enter the moving average.

    The function returns the optimiser's evaluation parameters, or the training parameters if the optimiser does not
    define evaluation parameters.
    """
    optimiser, params = setup.optimisers[player], state.params[player]
    if optimiser.evaluation_params is None:
        return params
    return optimiser.evaluation_params(state.opt_state[player], params)
