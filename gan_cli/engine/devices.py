"""Data parallelism: each batch is split over the devices of a run, and other arrays are replicated.

The program is written for one device. Means, batch statistics and gradients are therefore computed over the whole
batch, and the compiler inserts the communication between devices (Xu et al. 2021, "GSPMD").
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
    """``tree`` with ``axis`` of all arrays split over the devices.

    On a single device, ``tree`` is returned unchanged.

    A program must apply ``split`` to every batch that it generates, for example latents. Otherwise, the compiler
    would compute the whole batch on each device.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, _spec(axis))


def count() -> int:
    """The number of devices for which the program is compiled."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.size)


def same(tree: Tree) -> Tree:
    """``tree`` with all arrays replicated on each device.

    On a single device, ``tree`` is returned unchanged.
    """
    return (
        tree if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(tree, PartitionSpec())
    )


def _spec(axis: int) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, _AXIS)


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
