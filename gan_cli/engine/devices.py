"""The devices of a run: each batch is split over them, and all else is the same on each (data parallelism).

There is still one program, and it computes what one device would have: means, batch statistics and gradients are
over the whole batch. The compiler adds the communication that this takes (Xu et al. 2021, "GSPMD").
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gan_cli.errors import UserError
from gan_cli.types import Tree

_AXIS = "batch"


def split(tree: Tree, axis: int = 0) -> Tree:
    """``tree`` of arrays with this axis split over the devices; as it is where there is one device.

    Where a program makes an array of a batch from nothing, such as latents, it has to say so: the compiler would
    make the whole of it on each device.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, _spec(axis))


def same(tree: Tree) -> Tree:
    """``tree`` of arrays whole on each device."""
    return (
        tree if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(tree, PartitionSpec())
    )


def _spec(axis: int) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, _AXIS)


class Devices:
    """Those that a run computes on, of all its processes.

    Args:
        asked: how many, or all.

    Raises:
        UserError: there are fewer, or there are several processes and it is not all of theirs.
    """

    def __init__(self, asked: int | Literal["all"]):
        there = jax.devices()
        wanted = len(there) if asked == "all" else int(asked)
        if wanted > len(there):
            more = "" if there[0].platform != "cpu" else f" JAX_NUM_CPU_DEVICES={wanted} makes them of one CPU."
            raise UserError(f"train.devices={asked}: there are {len(there)}.{more}")
        if jax.process_count() > 1 and wanted < len(there):
            raise UserError(f"train.devices={asked}: {jax.process_count()} processes train on all their devices.")
        self.used = there[:wanted]
        # In the order of the processes, so that the rows of a batch that a process needs lie together.
        self._mesh = Mesh(np.array(self.used), (_AXIS,), axis_types=(AxisType.Auto,)) if wanted > 1 else None

    def __len__(self) -> int:
        return len(self.used)

    def mesh(self) -> AbstractContextManager[Any]:
        """Within it, programs are compiled and run for these devices."""
        return jax.set_mesh(self._mesh) if self._mesh is not None else contextlib.nullcontext()

    @property
    def everywhere(self) -> NamedSharding | None:
        """How what each device has whole is laid out."""
        return None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())

    def place(self, tree: Tree) -> Tree:
        """Arrays of the host, the same in all processes, whole on each device."""
        whole = self.everywhere
        if whole is None:
            return jax.device_put(tree)
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(np.shape(x), whole, lambda at: np.asarray(x)[at]), tree
        )

    def own_rows(self, batch: int) -> slice:
        """The rows of a batch that this process's devices see."""
        share = batch // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def place_rows(self, tree: Tree, axis: int) -> Tree:
        """Arrays of the host that have this process's rows of the axis, split over the devices."""
        if self._mesh is None:
            return jax.device_put(tree)
        split_ = NamedSharding(self._mesh, _spec(axis))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split_, x), tree)

    def here(self, tree: Tree) -> Tree:
        """What each device has whole, as arrays of this process's first device: costs nothing."""
        return tree if self._mesh is None else jax.tree.map(lambda x: x.addressable_data(0), tree)
