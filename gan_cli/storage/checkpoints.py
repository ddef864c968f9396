"""Checkpoints: Orbax directories whose contents are verified before they are used.

Orbax writes each checkpoint atomically. When Orbax restores a checkpoint, however, it does not detect corrupted
bytes, and it silently casts arrays of a wrong dtype. Each checkpoint therefore includes a manifest. The manifest
contains the SHA-256 hash, shape and dtype of every array, and the fingerprints of the configuration and the data.
Each new checkpoint is read back and verified before older checkpoints are deleted. Complete checkpoints stay intact
if the process is killed. A power failure may destroy the newest checkpoint, because Orbax does not call fsync.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from gan_cli.errors import RunFailed, UserError
from gan_cli.storage import files
from gan_cli.types import Tree

log = logging.getLogger(__name__)
T = TypeVar("T")
# Orbax has one save state per process, so two simultaneous saves in a process would time out.
_ONE_AT_A_TIME = threading.Lock()
# Orbax and TensorStore read other paths as patterns ("a[1]"), as addresses ("gs:"), as two folders ("a\\b"), or not
# at all (bytes that are not UTF-8).
_PLAIN = re.compile(r"[\w/.,=+@ -]*")


class Identity(NamedTuple):
    """The fingerprints of a run. A run can resume from a checkpoint only if their fingerprints match.

    Attributes:
        configuration: fingerprint of the options that a resumed run may not change.
        data: fingerprint of the training data, or None for a run without data.
        earlier: tuple of the fingerprints that earlier versions of the program computed for this configuration.
            The configuration of a checkpoint may have one of these fingerprints instead of ``configuration``.
        earlier_data: tuple of the fingerprints that earlier versions of the program computed for the same data.
        hint: advice for the error message about other data, or an empty text.
    """

    configuration: str
    data: str | None
    earlier: tuple[str, ...] = ()
    earlier_data: tuple[str, ...] = ()
    hint: str = ""

    def stored(self) -> dict[str, str | None]:
        """The fingerprints of the configuration and the data, in the format of a checkpoint's manifest."""
        return {"configuration": self.configuration, "data": self.data}

    def check(self, path: Path, found: dict[str, str | None]) -> None:
        """Raise a UserError unless the fingerprints of a checkpoint match the fingerprints of the run.

        Args:
            path: the checkpoint, for the error message.
            found: the fingerprints in the manifest of the checkpoint, as returned by ``stored``.

        Raises:
            UserError: the checkpoint was saved with another configuration or other data.
        """
        parts: tuple[tuple[str, str, tuple[str | None, ...]], ...] = (
            ("configuration", "configuration", (self.configuration, *self.earlier)),
            ("data", "data set", (self.data, *self.earlier_data)),
        )
        for part, noun, accepted in parts:
            if found[part] not in accepted:
                raise UserError(
                    f"{path}: the checkpoint was saved with another {noun}. "
                    f"Resume the run with the {noun} of its first start, or start a new run under another name, "
                    "for example name=new." + (f"\n{self.hint}" if part == "data" and self.hint else "")
                )


class Restored(NamedTuple):
    """The contents of a verified checkpoint.

    Attributes:
        state: the training state, as host arrays.
        monitors: the dictionary that was passed to ``save`` as ``monitors``.
        arrays: a mapping from the name of each array to its shape, dtype and SHA-256.
    """

    state: Tree
    monitors: dict[str, Any]
    arrays: dict[str, Any]


def newest_folder(run: Path) -> Path:
    """The folder of a run's newest checkpoints. Each sub-folder is a checkpoint and is named after the step."""
    return run / "checkpoints"


def best_folder(run: Path) -> Path:
    """The folder of the checkpoint with the best value of the run's objective."""
    return run / "best"


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in ``folder``, in ascending order."""
    # An interrupted save leaves a folder with a temporary name, which is not a number.
    return sorted(
        step
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (step := files.number(path.name)) is not None and path.is_dir()
    )


def save(
    folder: Path, step: int, state: Tree, identity: Identity, keep: int, monitors: dict[str, Any] | None = None
) -> None:
    """Write the checkpoint ``folder/<step>/``, read it back, and delete old checkpoints.

    The new checkpoint is always kept. If its contents are equal to ``state``, the checkpoints with the lowest steps
    among the others are deleted until ``keep`` checkpoints remain.

    Args:
        folder: folder of the checkpoints.
        step: number of training steps that led to ``state``.
        state: the training state, a pytree of host arrays.
        identity: the fingerprints of the run.
        keep: number of checkpoints to keep, including the new one.
        monitors: dictionary with the states of the monitor of mode collapse and of the objective tracker, as JSON
            values.

    Raises:
        Exception: the checkpoint could not be written or differs from ``state``. No other checkpoint is deleted.
    """
    from gan_cli.storage import orbax_files

    arrays = by_name(state)
    described = {name: orbax_files.described(array) for name, array in arrays.items()}
    manifest = {"step": step, "identity": identity.stored(), "arrays": described, "monitors": monitors or {}}
    folder.mkdir(parents=True, exist_ok=True)
    with _ONE_AT_A_TIME, _plain_path(folder) as plain, orbax_files.checkpointer() as checkpointer:
        orbax_files.write(checkpointer, plain / str(step), arrays, manifest)
        if _read(folder / str(step), state, identity).arrays != described:
            raise ValueError("the arrays that are read back differ from the arrays that were saved")
    others = [other for other in steps(folder) if other != step]
    for old in others[: max(len(others) + 1 - keep, 0)]:
        shutil.rmtree(folder / str(old))


def restore(
    runs: Sequence[tuple[Path, Identity]], like: Tree, only: int | None = None
) -> tuple[int, list[Restored]] | None:
    """Load the checkpoints of the newest step at which every run has a valid checkpoint.

    Runs that train together (the members of an ensemble) resume at the same step. If a checkpoint is damaged, the
    function tries the previous step. Once it has found a valid checkpoint, it logs a warning for each damaged
    checkpoint of a later step, and moves the damaged checkpoint to ``damaged/<step>``. If no checkpoint can be
    read, all checkpoints stay where they are, because the cause may be outside of the checkpoints.

    Args:
        runs: list of pairs, each with the directory and the identity of a run.
        like: a pytree with the structure, shapes and dtypes of the state of each run.
        only: the step to restore. With None, all steps are tried, from the newest to the oldest. If a step is given
            and a checkpoint of this step is missing or damaged, the function returns None.

    Returns:
        A pair: the step, and a list with the contents of the checkpoint of each run. The result is None if the runs
        have no checkpoint of a common step or of the step ``only``, or if the checkpoint of the step ``only`` is
        damaged.

    Raises:
        UserError: a checkpoint is intact, but was saved with another configuration, data set or architecture.
        RunFailed: missing permission or memory prevents reading a checkpoint. If ``only`` is None, the error is
            also raised if the runs have checkpoints of common steps, but none of these steps can be restored.
    """
    for run, _ in runs:
        _remove_interrupted(run)
    common = set.intersection(*(set(steps(newest_folder(run))) for run, _ in runs))
    common &= {only} if only is not None else common
    damaged: dict[Path, str] = {}
    for step in sorted(common, reverse=True):
        restored = []
        for run, identity in runs:
            path = newest_folder(run) / str(step)
            try:
                restored.append(_verified(path, like, identity))
            except _Damaged as error:
                damaged[path] = str(error)
        if len(restored) == len(runs):
            for path, reason in damaged.items():
                _set_aside(path, reason)
            return step, restored
    if damaged and only is None:
        path, reason = next(iter(damaged.items()))
        raise RunFailed(
            f"{path}: the checkpoint is damaged or cannot be read ({reason}), and no other checkpoint can be "
            "restored. All checkpoints stay where they are. Restore them from a copy, or start a new run under "
            "another name, e.g. name=again."
        )
    return None


class _Damaged(Exception):
    """The contents of a checkpoint differ from its manifest, or cannot be read."""


def _verified(path: Path, like: Tree, identity: Identity) -> Restored:
    """The contents of a checkpoint.

    Raises:
        UserError: the checkpoint is intact, but was saved with another configuration, data set or architecture.
        RunFailed: missing permission or memory prevents reading the checkpoint.
        _Damaged: the checkpoint is damaged.
    """
    try:
        return _read(path, like, identity)
    except UserError:
        raise
    except PermissionError as error:  # the checkpoint may be intact
        raise RunFailed(
            f"{path}: the checkpoint cannot be read ({_first_line(error)}). Make the files of the "
            "checkpoint readable for your user, then resume the run."
        ) from error
    except MemoryError as error:  # the checkpoint may be intact
        raise RunFailed(
            f"{path}: the checkpoint does not fit into memory ({_first_line(error)}). Resume the run on a machine "
            "with more memory."
        ) from error
    except Exception as error:  # reading damaged files may raise any exception
        raise _Damaged(_first_line(error)) from error


def _set_aside(path: Path, reason: str) -> None:
    """Log a warning, and move a damaged checkpoint to the folder ``damaged`` of its run."""
    aside = path.parent.parent / "damaged" / path.name
    log.warning("%s: the checkpoint is damaged (%s) and is moved to %s.", path, reason, aside)
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def load(folder: Path, like: Tree, only: int | None = None) -> tuple[int, Tree]:
    """A pair: the step and the state (host arrays) of the newest valid checkpoint in ``folder``.

    The function changes no file and does not check the fingerprints.

    Args:
        folder: folder of the checkpoints.
        like: a pytree with the structure, shapes and dtypes of the state.
        only: the step of the checkpoint to load. None loads the newest valid checkpoint.

    Raises:
        UserError: there is no valid checkpoint, or the arrays of the checkpoint differ from ``like`` in name, shape
            or dtype.
    """
    return _newest_valid(folder, only, lambda path: _read(path, like, None).state)


def load_arrays(folder: Path, only: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """A pair: the step and the arrays of the newest valid checkpoint in ``folder``, whatever its architecture.

    Args:
        folder: folder of the checkpoints.
        only: the step of the checkpoint to load. None loads the newest valid checkpoint.

    Returns:
        The step, and a dictionary from dotted names, as in ``by_name``, to arrays.

    Raises:
        UserError: there is no valid checkpoint.
    """
    return _newest_valid(folder, only, _read_arrays)


def data_of(run: Path) -> str | None:
    """The fingerprint of the data in the newest checkpoint of a run, or None if no checkpoint can be read."""

    from gan_cli.storage import orbax_files

    def read(path: Path) -> str | None:
        with _plain_path(path.parent) as plain, orbax_files.checkpointer() as checkpointer:
            data: str | None = orbax_files.read_manifest(checkpointer, plain / path.name)["identity"]["data"]
            return data

    try:
        return _newest_valid(newest_folder(run), None, read)[1]
    except UserError:
        return None


def _newest_valid(folder: Path, only: int | None, read: Callable[[Path], T]) -> tuple[int, T]:
    """A pair: the step of the newest checkpoint that ``read`` can read, and the result of ``read``."""
    found = steps(folder)
    if found and only is not None and only not in found:
        raise UserError(
            f"{folder}: there is no checkpoint of step {only}. "
            f"Choose one of the available steps ({', '.join(map(str, found))}), for example --step {found[-1]}."
        )
    for step in reversed([step for step in found if only in (None, step)]):
        try:
            return step, read(folder / str(step))
        except UserError:
            raise
        except Exception as error:  # reading damaged files may raise any exception
            path = folder / str(step)
            log.warning("%s: the checkpoint cannot be read (%s) and is skipped.", path, _first_line(error))
    if only is not None and len(found) > 1:
        raise UserError(
            f"{folder}: the checkpoint of step {only} cannot be read. "
            f"Choose another step: {', '.join(str(step) for step in found if step != only)}."
        )
    if found:
        raise UserError(
            f"{folder}: none of the checkpoints can be read. Check the permissions of the files, or train the run "
            "again under another name, for example name=again."
        )
    if folder.name == best_folder(folder.parent).name:
        raise UserError(
            f"{folder}: there is no checkpoint, because the run has not saved a best checkpoint. "
            "Leave out --best to use the newest checkpoint."
        )
    raise UserError(
        f"{folder}: there is no checkpoint, because the run has not saved any checkpoint. "
        "Train the run for at least train.checkpoint_every steps, or to the end."
    )


def copy(path: Path, folder: Path) -> None:
    """Copy a checkpoint into a folder atomically, and delete all other checkpoints in the folder.

    If the folder already contains a checkpoint of the same step, the function changes nothing.

    Args:
        path: path of the checkpoint to copy.
        folder: folder into which the checkpoint is copied. It is created if it does not exist.

    Raises:
        UserError: ``folder`` is a symbolic link.
    """
    if folder.is_symlink():  # deleting old checkpoints could delete files outside of the run
        raise UserError(
            f"{folder}: the folder for the best checkpoint must not be a symbolic link. Remove the link."
        )
    folder.mkdir(exist_ok=True)
    others = [folder / str(step) for step in steps(folder)]
    if folder / path.name in others:  # training is deterministic, so the existing copy is identical
        return
    copied = folder / f".{path.name}"
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir()
    for file in sorted(path.rglob("*")):  # shutil.copytree would need a file system with permissions
        target = copied / file.relative_to(path)
        target.mkdir() if file.is_dir() else shutil.copyfile(file, target)
    copied.rename(folder / path.name)
    for other in others:
        shutil.rmtree(other)


def _read(path: Path, like: Tree, identity: Identity | None) -> Restored:
    """The contents of a checkpoint, verified against the checkpoint's manifest.

    If ``identity`` is not None, the function also compares the fingerprints in the manifest with ``identity``.

    Raises:
        UserError: the arrays of the checkpoint differ from ``like`` in name, shape or dtype, or the fingerprints in
            the manifest do not match ``identity``.
        Exception: the checkpoint is damaged or cannot be read.
    """
    from gan_cli.storage import orbax_files

    expected = by_name(like)
    with _plain_path(path.parent) as plain, orbax_files.checkpointer() as checkpointer:
        manifest = orbax_files.read_manifest(checkpointer, plain / path.name)
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
            raise UserError(
                f"{path}: the architecture of the checkpoint differs from the architecture of the run's "
                f"configuration. The first array that differs is {differing[0]}. Use the configuration with which "
                "the checkpoint was saved."
            )
        arrays = orbax_files.read_arrays(checkpointer, plain / path.name, manifest)
    state = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])
    # Checkpoints of format 0 have no monitors.
    return Restored(state, manifest.get("monitors", {}), manifest["arrays"])


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, verified against the checkpoint's manifest."""
    from gan_cli.storage import orbax_files

    with _plain_path(path.parent) as plain, orbax_files.checkpointer() as checkpointer:
        place = plain / path.name
        return orbax_files.read_arrays(checkpointer, place, orbax_files.read_manifest(checkpointer, place))


class Saver:
    """Saves checkpoints in a background thread, one at a time.

    Args:
        folder: folder of the checkpoints.
        identity: the fingerprints of the run.
        keep: number of checkpoints to keep.

    Attributes:
        newest: the step of the newest checkpoint that this object has saved, or None before the first save.
        failed: whether a save has failed.
    """

    def __init__(self, folder: Path, identity: Identity, keep: int):
        self._folder, self._identity, self._keep = folder, identity, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self.newest: int | None = None
        self.failed = False

    def save(
        self,
        step: int,
        state: Tree,
        monitors: dict[str, Any] | None = None,
        after: Collection[Future[Any]] = (),
    ) -> None:
        """Wait for the previous save, copy ``state`` to the host, and start to save it in the background.

        Args:
            step: number of training steps that led to ``state``.
            state: the training state, a pytree of arrays.
            monitors: see the function ``save``.
            after: jobs that write files of the steps up to ``step``. The checkpoint is written when they are done,
                because a run that resumes from it does not write these files again.

        Raises:
            RunFailed: the previous save has failed.
        """
        self.wait()
        host = jax.tree.map(lambda x: np.array(x, copy=True), state)
        self._pending = self._thread.submit(self._save, step, host, monitors, after)

    def _save(self, step: int, host: Tree, monitors: dict[str, Any] | None, after: Collection[Future[Any]]) -> None:
        futures.wait(after)
        save(self._folder, step, host, self._identity, self._keep, monitors)
        self.newest = step

    def check(self) -> None:
        """Raise an error if the last save has failed. The method does not wait for a running save.

        Raises:
            RunFailed: the last save has failed.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the running save has finished.

        Raises:
            RunFailed: the last save has failed. Earlier checkpoints are still intact.
        """
        pending, self._pending = self._pending, None
        if pending is not None and (error := pending.exception()) is not None:
            self.failed = True
            raise RunFailed(
                f"{self._folder}: a checkpoint could not be written and read back ({_first_line(error)}). "
                "Earlier checkpoints are kept. Check the free disk space and the permissions, then resume the run."
            ) from error

    def close(self) -> None:
        """Wait until the running save has finished, and end the thread. No error is raised if the save failed."""
        self._thread.shutdown(wait=True)


def check_path(run: Path) -> None:
    """Raise a UserError if the path of a run's directory prevents writing checkpoints."""
    with _plain_path(newest_folder(run)):
        pass


@contextlib.contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """A context manager that returns an absolute path of ``folder`` that Orbax and TensorStore can use.

    If the path contains special characters, the result is a symbolic link in a temporary folder.

    Raises:
        UserError: the paths of all temporary folders contain special characters, too.
    """
    path = folder.absolute()
    if _PLAIN.fullmatch(str(path)):
        yield path
        return
    with contextlib.ExitStack() as stack:
        for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
            with contextlib.suppress(OSError):
                if _PLAIN.fullmatch(place):
                    link = Path(
                        stack.enter_context(tempfile.TemporaryDirectory(prefix="gan_cli-", dir=place)), "run"
                    )
                    link.symlink_to(path)
                    break
        else:
            raise UserError(
                f"{str(folder)!a}: checkpoints cannot be written to a path with special characters without a "
                "temporary folder. Set TMPDIR to a writable folder with a plain name, or train in a folder whose "
                "path consists of letters, digits, spaces and the characters / . , = + @ _ -."
            )
        yield link


def by_name(tree: Tree) -> dict[str, Any]:
    """A dictionary from dotted paths, for example ``params.generator.kernel``, to the leaves of a pytree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _remove_interrupted(run: Path) -> None:
    for folder in (newest_folder(run), best_folder(run)):
        for leftover in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
