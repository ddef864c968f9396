"""A run as its directory tells it, for whoever looks at one without training it. Nothing there is changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from gan_cli.config import stored
from gan_cli.config.build import Experiment, build
from gan_cli.data.capacity import available_memory
from gan_cli.engine.state import TrainState, init_state
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints
from gan_cli.storage.run_directory import facts
from gan_cli.trained import sampling
from gan_cli.types import Spec


@dataclass(frozen=True)
class RestoredRun:
    """A run at one of its checkpoints.

    Attributes:
        directory: of the run.
        experiment: as it was composed; its data set is None where it was not asked for.
        folder: of the checkpoint.
        step: of the checkpoint.
        state: arrays of the host.
    """

    directory: Path
    experiment: Experiment
    folder: Path
    step: int
    state: TrainState


def restore_run(
    directory: Path,
    *,
    data: bool = False,
    best: bool = False,
    step: int | None = None,
    raw: bool = False,
    modules: Sequence[str] = (),
) -> RestoredRun:
    """The run in ``directory``, which draws samples, at its newest checkpoint.

    Args:
        data: whether to load its data set too.
        best: whether to take the checkpoint with the best figure instead.
        step: the step whose checkpoint to take; None is the newest.
        raw: whether to leave out the moving averages.
        modules: further modules that the run's configuration may name.

    Raises:
        UserError: there is no run, or no checkpoint that fits it; or its game draws no samples.
    """
    told = facts(directory)
    config = stored.load(told, modules, ("dataset",) if data else ())
    config["train"]["ensemble"] = None
    if not config["dataset"] or "spec" not in told:
        raise UserError(f"{directory}: this run makes no samples.")
    experiment = build(config, None if data else _spec(told["spec"]))
    if not experiment.game.samples:
        raise UserError(f"{directory}: this run's game makes no samples.")
    folder = checkpoints.best_folder(directory) if best else checkpoints.newest_folder(directory)
    like = jax.eval_shape(functools.partial(init_state, experiment.setup))
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    if needed > available_memory():
        raise UserError(f"{directory}: its networks take {needed / 2**30:,.0f} GiB, more than this machine has.")
    at, state = checkpoints.load(folder, like, step)
    return RestoredRun(directory, experiment, folder / str(at), at, sampling.raw(state) if raw else state)


def _spec(told: Any) -> Spec:
    try:
        shape = tuple(int(side) for side in told["shape"])
        low, high = (None if told[end] is None else float(told[end]) for end in ("low", "high"))
        classes = None if told["num_classes"] is None else int(told["num_classes"])
    except (TypeError, KeyError, ValueError, OverflowError):
        shape, low, high, classes = (), None, None, None
    if len(shape) not in (1, 3) or min(shape) < 1 or (classes is not None and classes < 1):
        raise UserError("run.json does not say what the run's examples are.")
    return Spec(shape, low, high, classes)
