"""Training of one run by several processes, on one or several hosts.

All processes call the same compiled program in the same order. Only the first process (the primary process) writes
the run's directory.
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

# If a process does not respond for this number of seconds, JAX considers the process lost and ends all other
# processes.
_HEARTBEAT = 30
_TEXT = 1000  # length in bytes of a message between processes


def join() -> None:
    """Connect to the other processes of the run. This must happen before any other use of JAX.

    The number of processes and the address of the first process come from Slurm or from the environment variables
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Raises:
        UserError: some of the environment variables are missing or invalid.
        RunFailed: the processes could not connect.
    """
    if jax.distributed.is_initialized():
        return
    # JAX's preemption service would replace the handler of SIGTERM that saves a checkpoint.
    jax.config.update("jax_enable_preemption_service", False)
    by_hand: dict[str, Any] = {}
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            by_hand = {
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except KeyError as error:
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS is set, but {error.args[0]} is not set. Set the number of processes and "
                "the index of this process, for example JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0."
            ) from None
        except ValueError as error:
            raise UserError(
                f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers ({error}). Set the number of "
                "processes and the index of this process, for example JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0."
            ) from None
    try:
        jax.distributed.initialize(
            **by_hand, heartbeat_timeout_seconds=_HEARTBEAT, shutdown_timeout_seconds=_HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            f"the processes of this run could not connect ({str(error).splitlines()[0]}). Check that "
            "all processes are started and that every host can reach the first process (at the address in "
            "JAX_COORDINATOR_ADDRESS, if this variable is set)."
        ) from error


def is_primary() -> bool:
    """Whether this process is the primary process, which writes the run's directory."""
    return jax.process_index() == 0


def run_on_all(act: Callable[[], T]) -> T:
    """Call ``act`` in every process, and return this process's result after all processes succeed.

    If ``act`` raises an error in one process, every process raises an error, so that no process waits for a process
    that has ended.

    Raises:
        Exception: the error that ``act`` has raised in this process.
        UserError, RunFailed: ``act`` has raised an error in another process.
    """
    if jax.process_count() == 1:
        return act()
    message, raised = "", None
    try:
        result = act()
    except Exception as error:
        message, raised = f"{'U' if isinstance(error, UserError) else 'F'}{error}", error
    everyone = [_text(row) for row in multihost_utils.process_allgather(_bytes(message))]
    if raised is not None:
        raise raised
    for i, text in enumerate(everyone):
        if text:
            raise (UserError if text[0] == "U" else RunFailed)(f"process {i} of {len(everyone)}: {text[1:]}")
    return result


def broadcast_from_primary(make: Callable[[], Any]) -> Any:
    """Call ``make`` in the primary process, and return the result, a JSON value, in every process.

    Raises:
        Exception: ``make`` has raised an error, as documented in ``run_on_all``.
    """
    return (
        make() if jax.process_count() == 1 else json.loads(_bytes_from_primary(lambda: json.dumps(make()).encode()))
    )


def broadcast_state_from_primary(make: Callable[[], Tree | None], like: Tree) -> Tree | None:
    """Call ``make`` in the primary process, and return the result in every process.

    Args:
        make: function that returns a pytree of host arrays, or None.
        like: a pytree with the structure, shapes and dtypes of the result.

    Raises:
        Exception: ``make`` has raised an error, as documented in ``run_on_all``.
    """
    if jax.process_count() == 1:
        return make()

    def content() -> bytes:
        made = make()
        return b"" if made is None else b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made))

    received = _bytes_from_primary(content)
    if not received:
        return None
    leaves, start = [], 0
    for leaf in jax.tree.leaves(like):
        leaves.append(np.frombuffer(received, leaf.dtype, leaf.size, start).reshape(leaf.shape))
        start += leaves[-1].nbytes
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _bytes_from_primary(make: Callable[[], bytes]) -> bytes:
    # Arrays are sent as bytes, because the broadcast is a sum over processes, which would turn -0.0 into 0.0.
    made = run_on_all(lambda: make() if is_primary() else b"")
    length = int(_text(multihost_utils.broadcast_one_to_all(_bytes(str(len(made))))))
    content = np.zeros(length, np.uint8)
    if is_primary():
        content[:] = np.frombuffer(made, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()


def check_same(what: str, text: str) -> None:
    """Raise a UserError unless ``text``, for example a fingerprint, is equal in all processes.

    Args:
        what: noun for the message, for example ``"data"``.
        text: the text of this process.
    """
    if jax.process_count() > 1 and len({_text(row) for row in multihost_utils.process_allgather(_bytes(text))}) > 1:
        raise UserError(
            f"the processes of this run have different {what}. Make the same {what} available to every process."
        )


def barrier() -> None:
    """Wait until all processes have called this function.

    Without a barrier at the end of a run, JAX would treat the process that ends first as lost.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("gan_cli")


def exit_without_barrier(status: int) -> None:
    """End this process after a failure, without waiting for the other processes.

    A normal exit would wait for the other processes. After an exit without a barrier, the other processes detect
    the failure at once. In a run with a single process, this function does nothing.
    """
    if jax.distributed.is_initialized():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Agreement:
    """Decides whether at least one process requests an action, for example to stop training.

    With several processes, calling the object returns the decision on the requests of the previous call, so that no
    process waits for the communication. The first call returns False.
    """

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
