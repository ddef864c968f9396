"""``init_from``: starts a run with the parameters of another run.

An array of the checkpoint is transferred if the new run has an array of the same name, shape and dtype. All other
arrays of the new run are initialised from its seed. The data, the losses and the optimisers may therefore differ.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.engine.state import TrainSetup, TrainState, init_state, state_of_weights
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints
from gan_cli.storage.run_directory import facts, holds_run
from gan_cli.types import Tree

# The fields of TrainState whose arrays are transferred one by one, without and with the moving averages.
_WEIGHTS = ("params", "net_state")
_AVERAGES = ("average", "average_state")
_SHOWN = 4  # number of array names in a line


@dataclass(frozen=True)
class Transfer:
    """The arrays that a run takes from the checkpoint of another run.

    Attributes:
        source: the path of the checkpoint.
        step: the step of the checkpoint.
        taken: dictionary from dotted names, e.g. ``params.generator.out.kernel``, to arrays.
        fresh: dictionary from the names of the arrays that are initialised from the seed to the reason.
        unused: names of the parameters in the checkpoint that the run does not have.
    """

    source: Path
    step: int
    taken: dict[str, np.ndarray]
    fresh: dict[str, str]
    unused: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The transfer as an entry of ``run.json``."""
        return {
            "checkpoint": str(self.source),
            "step": self.step,
            "taken": sorted(self.taken),
            "fresh": self.fresh,
            "unused": list(self.unused),
        }

    def lines(self) -> list[str]:
        """A list of lines that describe the transfer."""
        total = len(self.taken) + len(self.fresh)
        lines = [f"init      {len(self.taken)} of {total} arrays from {self.source}"]
        if self.fresh:
            named = [f"{name.removesuffix('.value')} ({why})" for name, why in self.fresh.items()]
            lines.append(f"fresh     {_listed(named)}")
        if self.unused:
            lines.append(f"unused    {_listed([name.removesuffix('.value') for name in self.unused])}")
        return lines


def transfer(experiment: Experiment) -> Transfer | None:
    """The arrays that a run takes from another run, or None if ``init_from`` is null.

    Raises:
        UserError: ``init_from`` names no run or no valid checkpoint, or no weight of the checkpoint has the name
            and the shape of a weight of the run.
    """
    option, parts = experiment.config["init_from"], experiment.config["init_parts"]
    if option is None:
        return None
    try:
        folder, only = _folder(Path(option))
        step, arrays = checkpoints.load_arrays(folder, only)
    except UserError as error:
        raise UserError(f"init_from={option}: {error}") from error
    state: TrainState = jax.eval_shape(functools.partial(init_state, experiment.setup))
    expected = checkpoints.by_name(state)
    fields = _WEIGHTS if parts == "weights" else (*_WEIGHTS, *_AVERAGES)
    wanted = [name for name in expected if name.startswith(tuple(f"{field}." for field in fields))]
    problems = {name: _problem(arrays, expected, name) for name in wanted}
    taken = {name: arrays[name] for name, problem in problems.items() if not problem}
    fresh = {name: problem for name, problem in problems.items() if problem}
    if not _transfers_weights(taken, expected):
        raise UserError(
            f"init_from={option}: no weight of the checkpoint has the name and the shape of a weight of this run. "
            "Choose the model of that run, or another run."
        )
    if parts == "all":
        # The arrays of an optimiser's state belong together, so they are transferred together or not at all.
        for group in (*(f"opt_state.{player}" for player in experiment.game.players), "strategy"):
            ours, theirs = _under(expected, group), _under(arrays, group)
            if ours == theirs:
                taken |= {name: arrays[name] for name in ours}
            else:
                fresh[group] = "other arrays in the checkpoint"
    unused = tuple(name for name in arrays if name.startswith("params.") and name not in expected)
    return Transfer(folder / str(step), step, taken, fresh, unused)


def first_states(transferred: Transfer, experiments: Sequence[Experiment]) -> list[TrainState]:
    """The state before the first step of each of several runs, which all start with the same transferred arrays.

    Args:
        transferred: the arrays of the other run.
        experiments: the runs: one run, or the members of an ensemble.
    """
    return [_first_state(experiment.setup, transferred.taken) for experiment in experiments]


def _first_state(setup: TrainSetup, taken: Mapping[str, np.ndarray]) -> TrainState:
    fresh = jax.jit(functools.partial(init_state, setup))()
    weights = _replaced({"params": fresh.params, "net_state": fresh.net_state}, taken)
    # The optimisers and the strategy may keep copies of the parameters in their states.
    state = jax.jit(functools.partial(state_of_weights, setup))(weights["params"], weights["net_state"])
    whole: TrainState = _replaced(jax.device_get(state), taken)
    return whole


def _replaced(tree: Tree, arrays: Mapping[str, np.ndarray]) -> Tree:
    """A copy of ``tree`` in which the arrays with the given dotted names are replaced."""
    leaves = [arrays.get(name, leaf) for name, leaf in checkpoints.by_name(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _folder(source: Path) -> tuple[Path, int | None]:
    """A pair: the folder of the checkpoints that ``source`` names, and the step of the checkpoint if it names one.

    Raises:
        UserError: ``source`` is neither the directory of a run nor a folder of checkpoints, or it is an ensemble.
    """
    if source.name.isdecimal() and not holds_run(source) and source.is_dir() and holds_run(source.parent.parent):
        return source.parent, int(source.name)
    if source.name in ("checkpoints", "best") and holds_run(source.parent):
        return source, None
    facts(source)
    if (source / "members").is_dir():
        raise UserError(f"the run is an ensemble. Choose one of its members, e.g. {source / 'members' / '0'}.")
    return checkpoints.newest_folder(source), None


def _problem(arrays: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> str:
    """The reason why an array of the checkpoint cannot be used; empty if it can."""
    if name not in arrays:
        return "not in the checkpoint"
    theirs, ours = arrays[name], expected[name]
    if theirs.shape != ours.shape:
        return f"{list(ours.shape)} here, {list(theirs.shape)} in the checkpoint"
    return "" if theirs.dtype == ours.dtype else f"{ours.dtype} here, {theirs.dtype} in the checkpoint"


def _transfers_weights(taken: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether ``taken`` contains a weight of a network. Biases and scales without weights carry no knowledge."""
    params = {name: array for name, array in expected.items() if name.startswith("params.")}
    weights = {name for name, array in params.items() if len(array.shape) > 1} or params.keys()
    return not weights.isdisjoint(taken)


def _under(arrays: Mapping[str, Any], group: str) -> dict[str, tuple[Any, ...]]:
    """The shapes and dtypes of the arrays whose names start with ``group``."""
    return {
        name: (tuple(array.shape), str(array.dtype))
        for name, array in arrays.items()
        if name == group or name.startswith(f"{group}.")
    }


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
