"""Checkpoints: Orbax directories that prove, before they are used, that they hold what was saved.

Orbax commits a checkpoint atomically, but restores a flipped byte without a word and casts a wrong dtype. So
each one carries, in the same commit, a SHA-256, shape and dtype of every array and the fingerprints of the
configuration and the data. What survives is a killed process; Orbax does not fsync, so a power cut may not.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import args

from gan_cli.errors import RunFailed, UserError
from gan_cli.types import Tree

log = logging.getLogger(__name__)
# Orbax logs the tracebacks of failed reads and writes through absl; here they become one line of our own.
logging.getLogger("absl").setLevel(logging.CRITICAL)
# Orbax keeps the state of a save under way for the whole process: two at once time out.
_ONE_AT_A_TIME = threading.Lock()


class Identity(NamedTuple):
    """What must be equal where a checkpoint is used.

    Attributes:
        configuration: the fingerprint of the options that determine the run's past.
        data: the fingerprint of the training data, or None.
        earlier: fingerprints that earlier versions of the program gave the same configuration.
    """

    configuration: str
    data: str | None
    earlier: tuple[str, ...] = ()

    def stored(self) -> dict[str, str | None]:
        """What a checkpoint carries."""
        return {"configuration": self.configuration, "data": self.data}

    def check(self, path: Path, found: dict[str, Any]) -> None:
        """Raises: UserError: the checkpoint at ``path`` carries another identity."""
        accepted = {"configuration": (self.configuration, *self.earlier), "data": (self.data,)}
        for part, values in accepted.items():
            if found[part] not in values:
                raise UserError(f"{path}: was saved with another {part} than the run that would go on from it.")


class Restored(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: the training state, arrays of the host.
        monitors: as it was given to ``save``.
    """

    state: Tree
    monitors: dict[str, Any]


def newest_folder(run: Path) -> Path:
    """The folder of a run's newest checkpoints, each under its step."""
    return run / "checkpoints"


def best_folder(run: Path) -> Path:
    """The folder of the checkpoint with a run's best figure."""
    return run / "best"


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in ``folder``, oldest first; an interrupted save has no such name."""
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal()) if folder.is_dir() else []


def save(
    folder: Path, step: int, state: Tree, identity: Identity, keep: int, monitors: dict[str, Any] | None = None
) -> None:
    """Write ``folder/<step>/`` and remove all others but the ``keep - 1`` newest.

    Args:
        state: a pytree of host arrays.
        identity: what must be equal where this checkpoint is used.
        monitors: what a run has observed and decides by later, as JSON holds it.
    """
    arrays = by_name(state)
    described = {name: _description(array) for name, array in arrays.items()}
    manifest = {"step": step, "identity": identity.stored(), "arrays": described, "monitors": monitors or {}}
    path = (folder / str(step)).absolute()
    _hush_orbax()
    with _ONE_AT_A_TIME, _checkpointer() as checkpointer:
        checkpointer.save(
            path,
            args=args.Composite(
                state=args.StandardSave(arrays),
                manifest=args.JsonSave(manifest | {"sha256": _digest(manifest)}),
            ),
            force=True,  # a step that is reached again by a resumed run is written again, with the same bits
        )
    others = [other for other in steps(folder) if other != step]
    for old in others[: max(len(others) + 1 - keep, 0)]:
        shutil.rmtree(folder / str(old))


def restore(
    runs: Sequence[tuple[Path, Identity]], like: Tree, only: int | None = None
) -> tuple[int, list[Restored]] | None:
    """The newest step whose checkpoints verify in all of these runs, and what each holds.

    A damaged checkpoint is moved to ``damaged/<step>`` with a warning, and the step before is tried. Runs that are
    trained together are of one step; None is a start from the seed, where they have no step in common.

    Args:
        runs: each run's directory, and its identity as it was given to ``save``.
        like: a pytree of the structure, shapes and dtypes that each run needs.
        only: the one step to look at; None where it fails.

    Raises:
        UserError: a checkpoint is whole, but of another configuration, data set or architecture.
        RunFailed: there were checkpoints, and every one is damaged.
    """
    for run, _ in runs:
        _remove_interrupted(run)
    common = set.intersection(*(set(steps(newest_folder(run))) for run, _ in runs))
    common &= {only} if only is not None else common
    for step in sorted(common, reverse=True):
        found = [_verified(run, step, like, identity) for run, identity in runs]
        restored = [one for one in found if one is not None]
        if len(restored) == len(found):
            return step, restored
    if only is not None:
        return None
    for run, _ in runs:
        if common or any((run / "damaged").glob("*")):
            raise RunFailed(
                f"{run}: every checkpoint is damaged; they lie in {run / 'damaged'}.\nRemove that to start again."
            )
    return None


def _verified(run: Path, step: int, like: Tree, identity: Identity) -> Restored | None:
    """The state of this checkpoint; None where it was damaged, and is moved aside."""
    path = newest_folder(run) / str(step)
    try:
        return _read(path, like, identity)
    except UserError:
        raise
    except (PermissionError, MemoryError) as error:  # this process cannot read it: it may well be whole
        raise RunFailed(f"{path}: cannot be read: {_first_line(error)}") from error
    except Exception as error:  # whatever a reader makes of damaged files
        aside = run / "damaged" / str(step)
        log.warning("checkpoint %s is damaged (%s); moved to %s", path, _first_line(error), aside)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        return None


def load(folder: Path, like: Tree, only: int | None = None) -> tuple[int, Tree]:
    """The newest checkpoint in ``folder`` that verifies: its step and state, arrays of the host. Changes nothing.

    Args:
        like: a pytree of the structure, shapes and dtypes that are needed.
        only: the one step to take.

    Raises:
        UserError: there is none, or it is of another architecture.
    """
    found = steps(folder)
    if only is not None:
        if only not in found:
            there = ", ".join(map(str, found)) or "none"
            raise UserError(f"{folder}: holds no checkpoint of step {only}; there are {there}.")
        found = [only]
    for step in reversed(found):
        try:
            return step, _read(folder / str(step), like, None).state
        except UserError:
            raise
        except Exception as error:  # whatever a reader makes of damaged files
            log.warning("checkpoint %s cannot be read (%s)", folder / str(step), _first_line(error))
    raise UserError(f"{folder}: holds no checkpoint{' that can be read' if found else ''}.")


def copy(path: Path, folder: Path) -> None:
    """Put the checkpoint at ``path`` into ``folder`` too, which keeps no other; it is there whole or not at all."""
    if folder.is_symlink():  # the others that it keeps would be removed elsewhere
        raise UserError(f"{folder}: is a link.")
    folder.mkdir(exist_ok=True)
    others = [folder / str(step) for step in steps(folder)]
    if folder / path.name in others:  # a step's checkpoint is always the same
        return
    copied = folder / f".{path.name}"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(path, copied)
    copied.rename(folder / path.name)
    for other in others:
        shutil.rmtree(other)


def _read(path: Path, like: Tree, identity: Identity | None) -> Restored:
    path = path.absolute()
    expected = by_name(like)
    _hush_orbax()
    with _checkpointer() as checkpointer:
        manifest = checkpointer.restore(path, args=args.Composite(manifest=args.JsonRestore()))["manifest"]
        if manifest.pop("sha256") != _digest(manifest) or str(manifest["step"]) != path.name:
            raise ValueError("its manifest is not what was saved")
        if identity is not None:
            identity.check(path, manifest["identity"])
        shapes = {name: (tuple(d["shape"]), d["dtype"]) for name, d in manifest["arrays"].items()}
        if shapes != {name: (tuple(a.shape), a.dtype.name) for name, a in expected.items()}:
            differing = sorted(
                name
                for name in shapes.keys() | expected.keys()
                if name not in expected
                or shapes.get(name) != (tuple(expected[name].shape), expected[name].dtype.name)
            )
            raise UserError(f"{path}: is of another architecture; the first array that differs is {differing[0]}.")
        template = {name: np.empty(a.shape, a.dtype) for name, a in expected.items()}
        arrays = checkpointer.restore(path, args=args.Composite(state=args.StandardRestore(template)))["state"]
    for name, description in manifest["arrays"].items():
        if _description(arrays[name]) != description:
            raise ValueError(f"{name} does not have the SHA-256 that was saved with it")
    state = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])
    return Restored(state, manifest.get("monitors", {}))  # checkpoints of format 0 have none


class Saver:
    """Saves in the background, one checkpoint at a time, and tells of a failure as soon as it is known."""

    def __init__(self, folder: Path, identity: Identity, keep: int):
        self._folder, self._identity, self._keep = folder, identity, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self.newest: int | None = None

    def save(self, step: int, state: Tree, monitors: dict[str, Any] | None = None) -> None:
        """Copy ``state`` to the host now and write it in the background."""
        self.wait()
        host = jax.tree.map(lambda x: np.array(x, copy=True), state)
        self._pending = self._thread.submit(self._save, step, host, monitors)

    def _save(self, step: int, host: Tree, monitors: dict[str, Any] | None) -> None:
        save(self._folder, step, host, self._identity, self._keep, monitors)
        self.newest = step

    def check(self) -> None:
        """Raise what a finished save raised; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the pending save.

        Raises:
            RunFailed: it failed; earlier checkpoints are whole.
        """
        pending, self._pending = self._pending, None
        if pending is not None and (error := pending.exception()) is not None:
            raise RunFailed(f"a checkpoint could not be written: {_first_line(error)}") from error

    def close(self) -> None:
        self._thread.shutdown(wait=True)


def _checkpointer() -> ocp.Checkpointer:
    """Orbax for arrays of the host: of several processes, the one that saves or restores is alone in it."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone)),
        multiprocessing_options=alone,
    )


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@functools.cache
def _hush_orbax() -> None:
    """Where a read or write fails, Orbax's others die with it, each with a traceback from asyncio's closed loop.

    They may do so before the failure itself is raised, so this is called before the work, once a process.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            shown(unraisable)

    sys.unraisablehook = hook


def by_name(tree: Tree) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _description(array: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "sha256": hashlib.sha256(content.data).hexdigest(),
    }


def _remove_interrupted(run: Path) -> None:
    for folder in (newest_folder(run), best_folder(run)):
        for leftover in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
