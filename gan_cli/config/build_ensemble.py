"""Builds the members of an ensemble, and checks that one program can train them all."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.config import check
from gan_cli.config.ensemble import members
from gan_cli.config.schema import Train
from gan_cli.data.capacity import available_memory
from gan_cli.engine.state import TrainSetup, init_state
from gan_cli.errors import UserError
from gan_cli.storage import dotted
from gan_cli.types import Batch, Spec

if TYPE_CHECKING:
    from gan_cli.config.build import Experiment

BuildSetup = Callable[[dict[str, Any], Spec | None], TrainSetup]


@dataclass(frozen=True)
class Ensemble:
    """Several runs that differ in a few numbers, trained by one program.

    Attributes:
        members: each as the run that it replaces.
        overrides: the values that set each apart, by dotted key.
        varied: the same by key, arrays ``[members]``: the program's arguments.
        make: what the program is made of, given one member's values, which may be traced.
    """

    members: tuple[Experiment, ...]
    overrides: tuple[dict[str, Any], ...]
    varied: dict[str, np.ndarray]
    make: Callable[[dict[str, Any]], TrainSetup]


def build_ensemble(
    whole: Experiment, filled: dict[str, Any], spec: Spec | None, build_setup: BuildSetup
) -> Ensemble | None:
    """The members of ``train.ensemble``, or None of a single run.

    Args:
        whole: the experiment whose options the members share.
        filled: its configuration, with environment variables filled in.
        spec: of the data.
        build_setup: from a configuration, whose numbers may be traced.

    Raises:
        UserError: the members do not fit in memory, or differ in an option that decides what is compiled.
    """
    found = members(whole.config)
    if not found:
        return None
    _check_memory(whole, len(found))
    overrides = tuple(values for values, _ in found)
    experiments = tuple(
        dataclasses.replace(
            whole,
            config=config,
            setup=build_setup(check.from_environment(config), spec),
            train=Train(**config["train"]),
        )
        for _, config in found
    )
    varied = {key: _stacked(key, [values[key] for values in overrides]) for key in overrides[0]}

    def make(values: dict[str, Any]) -> TrainSetup:
        config = copy.deepcopy(filled)
        for key, value in values.items():
            dotted.put(config, key, value)
        return build_setup(config, spec)

    _check_variable(make, varied, whole)
    return Ensemble(experiments, overrides, varied, make)


def _stacked(key: str, values: list[Any]) -> np.ndarray:
    whole = all(isinstance(value, int) for value in values)
    return np.array(values, np.uint32 if key == "seed" else np.int32 if whole else np.float32)


def _check_memory(whole: Experiment, members: int) -> None:
    """Refuse an ensemble whose states alone, with their gradients and one copy, would not fit."""
    state = jax.eval_shape(lambda: init_state(whole.setup))
    needed = 3 * members * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if needed > available_memory():
        raise UserError(
            f"train.ensemble: {members} members need about {needed / 2**30:.0f} GiB where there are "
            f"{available_memory() / 2**30:.0f}: fewer members, a smaller model, or --multirun."
        )


def _check_variable(
    make: Callable[[dict[str, Any]], TrainSetup], varied: dict[str, np.ndarray], whole: Experiment
) -> None:
    """Refuse options whose value decides what is compiled: they cannot be an argument of one program."""
    data, size = whole.dataset, whole.train.batch_size
    batch: Any = None
    if data is not None:
        labels = None if data.spec.num_classes is None else jnp.zeros(size, jnp.int32)
        batch = Batch(jnp.zeros((size, *data.spec.shape)), labels)
    for key, values in varied.items():

        def one_step(value: Any, key: str = key) -> Any:
            parts = make({key: value})
            state = init_state(parts)
            return parts.step(state, [batch] * parts.strategy.batches, jax.random.key(0))

        try:
            jax.eval_shape(one_step, jnp.asarray(values[0]))
        except jax.errors.JAXTypeError:
            raise UserError(
                f"train.ensemble: {key} decides what is compiled, so that its values need a program each: "
                f"--multirun {key}={','.join(map(str, values.tolist()))}"
            ) from None
