"""Data parallelism: each batch is split over the devices of a run, and other arrays are replicated.

The program is written for one device. Means, batch statistics and gradients are therefore computed over the whole
batch, and the compiler inserts the communication between devices (Xu et al. 2021, "GSPMD").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gan_cli.errors import UserError
from gan_cli.types import Tree

_AXIS = "batch"
_MEMBERS = "members"  # the axis of the devices that share the members of an ensemble


def split(tree: Tree, axis: int = 0) -> Tree:
    """``tree`` with ``axis`` of all arrays split over the devices.

    On a single device, ``tree`` is returned unchanged.

    A program must apply ``split`` to every batch that it generates, for example latents. Otherwise, the compiler
    would compute the whole batch on each device.
    """
    return jax.lax.with_sharding_constraint(tree, _spec(axis)) if _splits() else tree


def count() -> int:
    """The number of devices over which the program splits a batch."""
    return int(jax.sharding.get_abstract_mesh().size) if _splits() else 1


def same(tree: Tree) -> Tree:
    """``tree`` with all arrays replicated on each device.

    On a single device, ``tree`` is returned unchanged.
    """
    return jax.lax.with_sharding_constraint(tree, PartitionSpec()) if _splits() else tree


def _splits() -> bool:
    """Whether the program is compiled for several devices that share each batch."""
    return _AXIS in jax.sharding.get_abstract_mesh().axis_names


def _spec(axis: int, name: str = _AXIS) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, name)


class Devices:
    """The devices on which a run computes, including the devices of all other processes of the run.

    Args:
        asked: the value of the option ``train.devices``: a number of devices, or ``"all"``.

    Attributes:
        used: list of the devices on which the run computes.

    Raises:
        UserError: fewer devices are available than requested, or a run with several processes requests only some of
            the available devices.
    """

    def __init__(self, asked: int | Literal["all"]):
        there = jax.devices()
        wanted = len(there) if asked == "all" else int(asked)
        if wanted > len(there):
            remedy = (
                "Choose a smaller number, or train.devices=all."
                if there[0].platform != "cpu"
                else f"Set the environment variable JAX_NUM_CPU_DEVICES={wanted} to split the CPU into devices."
            )
            raise UserError(f"train.devices={asked}: the number of available devices is {len(there)}. {remedy}")
        if jax.process_count() > 1 and wanted < len(there):
            raise UserError(
                f"train.devices={asked}: the {jax.process_count()} processes must use all {len(there)} devices. "
                "Set train.devices=all, or start fewer processes."
            )
        self.used = there[:wanted]
        # The devices are sorted by process, so the rows of a batch for one process are contiguous.
        self._mesh = Mesh(np.array(self.used), (_AXIS,), axis_types=(AxisType.Auto,)) if wanted > 1 else None

    def __len__(self) -> int:
        return len(self.used)

    def mesh(self) -> AbstractContextManager[Any]:
        """Context manager in which programs are compiled for these devices."""
        return jax.set_mesh(self._mesh) if self._mesh is not None else contextlib.nullcontext()

    @property
    def everywhere(self) -> NamedSharding | None:
        """The sharding of replicated arrays, or None on a single device."""
        return None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())

    def place(self, tree: Tree) -> Tree:
        """Copy host arrays to each device. The arrays must be equal in all processes."""
        whole = self.everywhere
        if whole is None:
            return jax.device_put(tree)
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(np.shape(x), whole, lambda at: np.asarray(x)[at]), tree
        )

    def place_key(self, key: jax.Array) -> jax.Array:
        """Copy a random key to each device. The keys must be equal in all processes."""
        placed: jax.Array = jax.random.wrap_key_data(self.place(np.asarray(jax.random.key_data(key))))
        return placed

    def own_rows(self, batch: int) -> slice:
        """The rows of a batch that the devices of this process receive."""
        share = batch // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def place_rows(self, tree: Tree, axis: int) -> Tree:
        """Copy host arrays to the devices, split along an axis.

        Args:
            tree: host arrays that contain only the rows of this process (see ``own_rows``).
            axis: the axis of the rows.
        """
        if self._mesh is None:
            return jax.device_put(tree)
        split_ = NamedSharding(self._mesh, _spec(axis))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split_, x), tree)

    def here(self, tree: Tree) -> Tree:
        """The copies of replicated arrays on the first device of this process. No data are transferred."""
        return tree if self._mesh is None else jax.tree.map(lambda x: x.addressable_data(0), tree)


class MemberDevices(Devices):
    """The devices that share the members of an ensemble: all devices of the CPU, or one accelerator.

    Args:
        members: number of members.

    Attributes:
        used: list of the devices, at most one for each member.
        rows: number of members with those that fill up the last device, a multiple of the number of devices.
    """

    def __init__(self, members: int):
        there = jax.local_devices()
        self.used = there[:members] if there[0].platform == "cpu" else there[:1]
        self.rows = -(-members // len(self.used)) * len(self.used)
        self._mesh = Mesh(np.array(self.used), (_MEMBERS,), axis_types=(AxisType.Auto,)) if len(self) > 1 else None

    def mesh(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    @property
    def by_member(self) -> NamedSharding | None:
        """The sharding of arrays whose first axis is that of the members, or None on a single device."""
        return None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec(_MEMBERS))

    def place_rows(self, tree: Tree, axis: int) -> Tree:
        """Copy the host arrays of each member to its device. The members are the first axis, whatever ``axis``."""
        return jax.device_put(tree, self.by_member)

    def on_each(self, function: Callable[..., Any], shared: Sequence[bool]) -> Callable[..., Any]:
        """``function`` as a program of which each device computes the rows of its members.

        Args:
            function: a function of arrays whose first axis is that of the members. The results have this axis too.
            shared: for each argument, whether all devices read it whole.
        """
        if self._mesh is None:
            return function
        specs = tuple(PartitionSpec() if whole else PartitionSpec(_MEMBERS) for whole in shared)
        mapped: Callable[..., Any] = jax.shard_map(
            function, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(_MEMBERS), check_vma=False
        )
        return mapped

    def row(self, tree: Tree, i: int) -> Tree:
        """Row ``i`` of arrays whose first axis is that of the members, on the first device."""
        device, place = divmod(i, self.rows // len(self))
        own = jax.tree.map(lambda leaf: leaf.addressable_data(device), tree)
        return jax.device_put(_row(own, place), self.used[0])


@jax.jit
def _row(tree: Tree, i: int | jax.Array) -> Tree:
    return jax.tree.map(lambda leaf: leaf[i], tree)
