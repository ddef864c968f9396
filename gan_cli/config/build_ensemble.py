"""Builds the members of an ensemble, and checks that one compiled program can train them all."""

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
from gan_cli.types import Batch, Spec, Tree

if TYPE_CHECKING:
    from gan_cli.config.build import Experiment

BuildSetup = Callable[[dict[str, Any], Spec | None], TrainSetup]


@dataclass(frozen=True)
class Ensemble:
    """Runs that one compiled program trains together.

    Each run is a member of the ensemble. The members differ only in numeric options, the varied options.

    Attributes:
        members: tuple of experiments. Each experiment describes the single run that is equivalent to a member.
        overrides: tuple with a dictionary for each member, from dotted keys of the varied options to their values.
        varied: dictionary from the dotted key of each varied option to an array ``[members]`` of its values. The
            compiled program receives these arrays as arguments.
        make: a function that builds the setup of a member. Its argument is a dictionary from the dotted keys of the
            varied options to their values, which may be traced.
    """

    members: tuple[Experiment, ...]
    overrides: tuple[dict[str, Any], ...]
    varied: dict[str, np.ndarray]
    make: Callable[[dict[str, Any]], TrainSetup]


def build_ensemble(
    whole: Experiment, filled: dict[str, Any], spec: Spec | None, build_setup: BuildSetup
) -> Ensemble | None:
    """Build the ensemble that ``train.ensemble`` describes, or return None for a single run.

    Args:
        whole: the experiment whose options the members share.
        filled: the configuration of ``whole``, with environment variables filled in.
        spec: the features of an example by name, or None for a run without data.
        build_setup: a function that builds a setup from a configuration and ``spec``. The numbers in the
            configuration may be traced.

    Raises:
        UserError: the members do not fit into memory, or they differ in an option that changes the
            compiled program.
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
    """Raise a UserError if the ensemble needs more memory than is available.

    The estimate is three times the size of the members' states: once for the states, once for a copy of the states,
    and once for the gradients.
    """
    state = jax.eval_shape(lambda: init_state(whole.setup))
    needed = 3 * members * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if needed > available_memory():
        raise UserError(
            f"train.ensemble: {members} members need about {needed / 2**30:.0f} GiB of memory, and "
            f"{available_memory() / 2**30:.0f} GiB are available. Choose fewer members or a smaller model, or "
            "train the members one after the other in a sweep, e.g. --multirun seed=0,1."
        )


def _check_variable(
    make: Callable[[dict[str, Any]], TrainSetup], varied: dict[str, np.ndarray], whole: Experiment
) -> None:
    """Raise a UserError if the compiled program cannot receive a varied option as an argument.

    For each varied option, the function traces one training step with the option as an argument. Tracing fails if
    Python code needs the value of the option, for example as a number of layers.
    """
    data, size = whole.dataset, whole.train.batch_size
    batch: Batch = {}
    if data is not None:
        sampler, *_ = data.feed.samplers(size).values()
        for name, one in data.spec.items():
            batch[name] = one.encode(jnp.zeros((sampler.rows, *one.stored_shape), one.dtype))
        batch |= {"mask": jnp.ones(sampler.rows)} if sampler.pads else {}
    for key, values in varied.items():

        def one_step(value: jax.Array, key: str = key) -> Tree:
            parts = make({key: value})
            state = init_state(parts)
            return parts.step(state, [batch] * parts.strategy.batches, jax.random.key(0))

        try:
            jax.eval_shape(one_step, jnp.asarray(values[0]))
        except TypeError:  # also the TypeErrors of JAX, e.g. for a shape that is not a number
            raise UserError(
                f"train.ensemble: {key} changes the compiled program, so its values cannot share one program. "
                f"Remove {key} from train.ensemble, and vary it in a sweep: "
                f"--multirun {key}={','.join(map(str, values.tolist()))}."
            ) from None
