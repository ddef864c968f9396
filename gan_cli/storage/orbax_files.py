"""Writes and reads the files of one checkpoint with Orbax, and verifies their contents.

``gan_cli.storage.checkpoints`` imports this module when the first checkpoint is written or read, because Orbax
loads slowly, and a new run trains before it saves.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import args
from orbax.checkpoint._src.serialization import tensorstore_utils

# Orbax logs the tracebacks of failed reads and writes through absl. gan_cli.storage.checkpoints reports each
# failure in one line.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def checkpointer() -> ocp.Checkpointer:
    """An Orbax checkpointer for host arrays, used by the current process alone.

    By default, Orbax would wait for all processes of a multi-process run.
    """
    _hush_orbax()
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone)),
        multiprocessing_options=alone,
    )


def write(
    checkpointer: ocp.Checkpointer, path: Path, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]
) -> None:
    """Write a checkpoint. If ``path`` exists, it is replaced.

    Args:
        checkpointer: the result of ``checkpointer``.
        path: the path of the checkpoint, whose name is the step.
        arrays: the arrays by name.
        manifest: the entries of the manifest, which include the ``described`` arrays.
    """
    checkpointer.save(
        path,
        args=args.Composite(
            state=args.StandardSave(arrays),
            manifest=args.JsonSave({**manifest, "sha256": _digest(manifest)}),
        ),
        force=True,  # a resumed run may reach this step again and then saves the same contents
    )


def read_manifest(checkpointer: ocp.Checkpointer, path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        Exception: the manifest cannot be read, is damaged, or belongs to another step.
    """
    restored = checkpointer.restore(path, args=args.Composite(manifest=args.JsonRestore()))
    manifest: dict[str, Any] = restored["manifest"]
    if manifest.pop("sha256") != _digest(manifest):
        raise ValueError("the manifest does not match its SHA-256")
    if str(manifest["step"]) != path.name:
        raise ValueError(f"the manifest belongs to step {manifest['step']}")
    return manifest


def read_arrays(checkpointer: ocp.Checkpointer, path: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name.

    Raises:
        Exception: an array cannot be read, or differs from the manifest.
    """
    template = {name: np.empty(d["shape"], d["dtype"]) for name, d in manifest["arrays"].items()}
    arrays: dict[str, np.ndarray] = checkpointer.restore(
        path, args=args.Composite(state=args.StandardRestore(template))
    )["state"]
    for name, description in manifest["arrays"].items():
        if described(arrays[name]) != description:
            raise ValueError(f"the array {name} does not match the manifest")
    return arrays


def described(array: np.ndarray) -> dict[str, Any]:
    """The shape, dtype and SHA-256 of an array, as the manifest contains them."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "sha256": hashlib.sha256(content.data).hexdigest(),
    }


def save_without_locks() -> None:
    """Save the checkpoints of this process on a file system without locks from now on.

    TensorStore locks each file that it writes. With this function, it makes lock files instead. Orbax has no option
    for the context of TensorStore, so the function changes the default of Orbax.
    """
    for context in (tensorstore_utils._BASE_TS_CONTEXT, tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT):
        context["file_io_locking"] = {"mode": "lockfile"}


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@functools.cache
def _hush_orbax() -> None:
    """Hide the tracebacks that Orbax prints when a read or write fails.

    A failed read or write closes the asyncio event loop, and each unfinished task of Orbax then prints a traceback.
    The traceback may be printed before Orbax raises the exception, so this function must be called before the read
    or write. Only the first call in a process has an effect.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            shown(unraisable)

    sys.unraisablehook = hook
