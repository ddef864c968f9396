"""Several processes that train one run together, on one host or many: who they are, and what they agree on.

All make the same calls of the same program. The first keeps the run's books; the others compute and follow.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gan_cli.errors import RunFailed, UserError
from gan_cli.types import Tree

T = TypeVar("T")

# A process that does not answer for this long is lost, and JAX ends the others.
_HEARTBEAT = 30
_TEXT = 1000  # bytes of a message between processes


def join() -> None:
    """Meet the others, whom Slurm or the environment tells of. To be called before anything of JAX is used.

    Raises:
        UserError: by hand, and it was not said how many and which.
        RunFailed: the others were not met.
    """
    if jax.distributed.is_initialized():
        return
    # JAX's own handler of SIGTERM would take the place of ours, and asks for nothing to be saved.
    jax.config.update("jax_enable_preemption_service", False)
    by_hand: dict[str, Any] = {}
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            by_hand = {
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except (KeyError, ValueError) as error:
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS is set: JAX_NUM_PROCESSES and JAX_PROCESS_ID must be too ({error})."
            ) from None
    try:
        jax.distributed.initialize(
            **by_hand, heartbeat_timeout_seconds=_HEARTBEAT, shutdown_timeout_seconds=_HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise RunFailed(f"the processes of this run did not meet: {str(error).splitlines()[0]}") from error


def is_primary() -> bool:
    """Whether this process keeps the books."""
    return jax.process_index() == 0


def run_on_all(act: Callable[[], T]) -> T:
    """What ``act`` returns in this process, once it has succeeded in each of them.

    Raises:
        UserError, RunFailed: what it raised here, or an error that says what it raised elsewhere: then no process
            goes on to wait for one that does not.
    """
    if jax.process_count() == 1:
        return act()
    told, raised = "", None
    try:
        result = act()
    except Exception as error:
        told, raised = f"{'U' if isinstance(error, UserError) else 'F'}{error}", error
    everyone = [_text(row) for row in multihost_utils.process_allgather(_bytes(told))]
    if raised is not None:
        raise raised
    for i, text in enumerate(everyone):
        if text:
            raise (UserError if text[0] == "U" else RunFailed)(f"process {i} of {len(everyone)}: {text[1:]}")
    return result


def broadcast_from_primary(make: Callable[[], Any]) -> Any:
    """What ``make`` returns in the first process, in all of them: anything that JSON holds.

    Raises:
        UserError, RunFailed: as ``run_on_all``.
    """
    return (
        make() if jax.process_count() == 1 else json.loads(_bytes_from_primary(lambda: json.dumps(make()).encode()))
    )


def broadcast_state_from_primary(make: Callable[[], Tree | None], like: Tree) -> Tree | None:
    """The arrays of the host that ``make`` returns in the first process, in all of them, or None.

    Args:
        like: a pytree of their structure, shapes and dtypes.

    Raises:
        UserError, RunFailed: as ``run_on_all``.
    """
    if jax.process_count() == 1:
        return make()

    def content() -> bytes:
        made = make()
        return b"" if made is None else b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made))

    told = _bytes_from_primary(content)
    if not told:
        return None
    leaves, start = [], 0
    for leaf in jax.tree.leaves(like):
        leaves.append(np.frombuffer(told, leaf.dtype, leaf.size, start).reshape(leaf.shape))
        start += leaves[-1].nbytes
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _bytes_from_primary(make: Callable[[], bytes]) -> bytes:
    # As bytes, since the sum over processes that this takes would make a 0.0 of a -0.0.
    made = run_on_all(lambda: make() if is_primary() else b"")
    length = int(_text(multihost_utils.broadcast_one_to_all(_bytes(str(len(made))))))
    content = np.zeros(length, np.uint8)
    if is_primary():
        content[:] = np.frombuffer(made, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()


def check_same(what: str, text: str) -> None:
    """Refuse to go on where this text, a digest, is not the same in all processes."""
    if jax.process_count() > 1 and len({_text(row) for row in multihost_utils.process_allgather(_bytes(text))}) > 1:
        raise UserError(f"the processes of this run see different {what}.")


def barrier() -> None:
    """Until all are here: a process that has ended would be taken for lost."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("gan_cli")


def exit_without_barrier(status: int) -> None:
    """End this process after a failure, without waiting for the others as JAX would: they see at once that it is
    gone. Does nothing where there are no others."""
    if jax.distributed.is_initialized():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Agreement:
    """Whether any of the processes wishes something, known one call late of several, so that no call waits."""

    def __init__(self) -> None:
        self._last: jax.Array | None = None
        if jax.process_count() > 1:
            devices = np.array([jax.local_devices(process_index=i)[0] for i in range(jax.process_count())])
            mesh = Mesh(devices, ("process",), axis_types=(AxisType.Auto,))
            self._split = NamedSharding(mesh, PartitionSpec("process"))
            self._any = jax.jit(lambda wishes: wishes.any(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, wish: bool) -> bool:
        if jax.process_count() == 1:
            return wish
        before = self._last
        self._last = self._any(jax.make_array_from_process_local_data(self._split, np.array([wish])))
        return before is not None and bool(np.asarray(before))


def _bytes(text: str) -> np.ndarray:
    encoded = np.zeros(_TEXT, np.uint8)
    content = text.encode()[:_TEXT]
    encoded[: len(content)] = np.frombuffer(content, np.uint8)
    return encoded


def _text(row: np.ndarray) -> str:
    return bytes(np.asarray(row)).rstrip(b"\0").decode(errors="replace")
