"""Restores a run from its directory for sampling, evaluation or export, without changing any file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from gan_cli.config import stored
from gan_cli.config.build import Experiment, build, dataset
from gan_cli.data.capacity import available_memory
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import classes_of, from_description
from gan_cli.engine.state import TrainState, init_state
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints, marks
from gan_cli.storage.marks import Origin
from gan_cli.storage.run_directory import facts
from gan_cli.trained import sampling
from gan_cli.types import Spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestoredRun:
    """A run, restored at one of its checkpoints.

    Attributes:
        directory: directory of the run.
        experiment: the objects that make up the run. ``experiment.dataset`` is None if the data set was not loaded.
        folder: folder of the checkpoint.
        step: step of the checkpoint.
        state: training state, as host arrays.
        class_names: the names of the classes, or an empty tuple if ``run.json`` does not contain them.
        examples: number of training examples. None if ``run.json`` does not contain it.
        fingerprint: the entry ``fingerprint`` of ``run.json``. None if it is missing.
    """

    directory: Path
    experiment: Experiment
    folder: Path
    step: int
    state: TrainState
    class_names: tuple[str, ...] = ()
    examples: int | None = None
    fingerprint: str | None = None

    def origin(self, seed: int) -> Origin:
        """The origin of samples of this run, for their provenance marks."""
        fingerprint = None if self.experiment.has_secret_seed else self.fingerprint
        return marks.origin_of(self.directory, fingerprint, self.step, seed)


def restore_run(
    directory: Path,
    *,
    data: bool = False,
    best: bool = False,
    step: int | None = None,
    raw: bool = False,
    modules: Sequence[str] = (),
) -> RestoredRun:
    """Build the experiment of a run, and load the training state from one of the run's checkpoints.

    The game of the run must have tasks.

    Args:
        directory: directory of the run.
        data: whether to load the run's data set.
        best: whether to restore the checkpoint with the best value of the objective instead of the newest.
        step: step of the checkpoint to restore. None restores the newest valid checkpoint.
        raw: whether to drop the moving averages, so that samples are drawn with the latest parameters.
        modules: the user's Python modules. The run's configuration may use their functions and classes.

    Raises:
        UserError: the directory contains no run, ``run.json`` is damaged, the run has no valid checkpoint that fits
            the configuration, the training state does not fit into memory, or the game cannot draw samples.
    """
    record = facts(directory)
    config = stored.load(record, modules, ("dataset",) if data else ())
    # Samples do not depend on how a batch was split in training, so one of the devices of this machine is enough.
    config["train"] |= {"ensemble": None, "devices": 1}
    if not config["dataset"]:
        raise UserError(f"{directory}: this run has no data set and cannot draw samples. Choose another run.")
    if "spec" not in record:
        raise UserError(
            f"{directory}: run.json has no entry `spec`, which describes the examples. Restore the file from a "
            "copy."
        )
    experiment = build(config, None if data else _spec(directory, record["spec"], modules), resumes=directory)
    _warn_of_private(directory, experiment.dataset)
    if not experiment.game.tasks:
        raise UserError(f"{directory}: the game of this run cannot draw samples. Choose another run.")
    folder = checkpoints.best_folder(directory) if best else checkpoints.newest_folder(directory)
    like = jax.eval_shape(functools.partial(init_state, experiment.setup))
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    if needed > available_memory():
        raise UserError(
            f"{directory}: the training state takes {needed / 2**30:,.0f} GiB, but this machine has only "
            f"{available_memory() / 2**30:,.0f} GiB of memory. "
            "Use a machine with more memory."
        )
    at, state = checkpoints.load(folder, like, step)
    assert experiment.game.spec is not None
    names = _class_names(record.get("data"), classes_of(experiment.game.spec))
    state = sampling.raw(state) if raw else state
    examples = _examples(record.get("data"))
    return RestoredRun(
        directory, experiment, folder / str(at), at, state, names, examples, record.get("fingerprint")
    )


def load_data(directory: Path, modules: Sequence[str] = ()) -> Dataset:
    """The data set of a run, after the treatment of copies.

    Args:
        directory: directory of the run.
        modules: the user's Python modules.

    Raises:
        UserError: the data set is not available.
    """
    data = dataset(stored.load(facts(directory), modules, ("dataset",)))
    assert data is not None
    _warn_of_private(directory, data)
    return data


def _warn_of_private(directory: Path, data: Dataset | None) -> None:
    """Log a warning if the data of a private run are read, because what is made from them carries no noise."""
    if data is not None and data.private:
        log.warning(
            "%s: reads the data of a private run. Its epsilon does not cover figures and pictures that are made "
            "from the data.",
            directory,
        )


def _class_names(described: Any, classes: int | None) -> tuple[str, ...]:
    """The names in the entry ``data`` of ``run.json``, or an empty tuple if it does not name all classes."""
    names = described.get("classes") if isinstance(described, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and len(names) == classes else ()


def _examples(described: Any) -> int | None:
    """The number of training examples in the entry ``data`` of ``run.json``, or None."""
    number = described.get("examples") if isinstance(described, dict) else None
    return number if isinstance(number, int) and number > 0 else None


def _spec(directory: Path, stated: Any, modules: Sequence[str]) -> Spec:
    """The Spec that the entry ``spec`` of ``run.json`` describes.

    Raises:
        UserError: the entry is damaged.
    """
    try:
        return from_description(stated, modules)
    except ValueError as error:
        raise UserError(
            f"{directory}: the entry `spec` of run.json, which describes the examples, is damaged ({error}). "
            "Restore the file from a copy."
        ) from error
