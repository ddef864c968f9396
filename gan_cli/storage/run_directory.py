"""Reads files in the directory of a run, without importing the functions to which run.json refers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_cli.errors import UserError
from gan_cli.storage import files, locks

# Version of the format of run.json. In format 0, the configuration contains Python paths (gan_cli.losses.hinge),
# and the file does not state the version. In format 1, the configuration contains the names of choices
# (hinge), except that a function without a shipped YAML file keeps its Python path.
FORMAT = 1
_NAME = "run.json"


def facts(run: Path) -> dict[str, Any]:
    """The contents of the run's ``run.json``.

    Raises:
        UserError: the directory does not exist or contains no run, or ``run.json`` cannot be read, is damaged or
            has a newer format.
    """
    if not run.is_dir():
        raise UserError(f"{run}: there is no such directory. Check the path.")
    try:
        found = files.read_json(run / _NAME)
    except FileNotFoundError:
        raise UserError(
            f"{run}: the directory contains no run (there is no run.json). Choose the directory of a run, for "
            "example outputs/digits."
        ) from None
    except OSError as error:
        raise UserError(f"{run}: run.json cannot be read ({error}). Check the permissions of the file.") from error
    except ValueError as error:
        raise UserError(
            f"{run}: run.json cannot be read as JSON ({error}). Restore the file from a copy, or choose another "
            "run."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise UserError(
            f"{run}: run.json contains no configuration. Restore the file from a copy, or choose another run."
        )
    if found.get("format", 0) not in range(FORMAT + 1):
        raise UserError(
            f"{run}: the run was written by a newer version of gan_cli (in format {found['format']}; this version "
            f"reads formats up to {FORMAT}). Update gan_cli."
        )
    return found


def facts_or_empty(run: Path) -> dict[str, Any]:
    """The contents of ``run.json`` in any format, or an empty dictionary if the file cannot be read."""
    try:
        found = files.read_json(run / _NAME)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holds_run(directory: Path) -> bool:
    """Whether ``directory`` is the directory of a run, that is, contains a file ``run.json``."""
    return (directory / _NAME).is_file()


def run_of(path: Path) -> Path:
    """The directory of the run to which ``path`` belongs: the run itself, or a checkpoint or folder within it."""
    return next((one for one in (path, path.parent, path.parent.parent) if holds_run(one)), path)


def is_private(run: Path) -> bool:
    """Whether the run trained with ``estimator=private``, according to its ``run.json``."""
    return "privacy" in facts_or_empty(run)


def evaluations_path(run: Path) -> Path:
    """The file of the evaluations of a run. Those of a private run carry no noise, so they stay in ``private/``."""
    return (run / "private" if is_private(run) else run) / "evaluations.json"


def evaluations(run: Path) -> list[dict[str, Any]]:
    """A list of the evaluations that ``gan-eval`` has stored in the run's directory, oldest first."""
    try:
        kept = files.read_json(evaluations_path(run))
    except (OSError, ValueError):
        return []
    kept = [one for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []
    return [one for one in kept if isinstance(one.get("metrics"), dict) and isinstance(one.get("step"), int)]


def in_training(run: Path) -> bool:
    """Whether a process may still be training this run (see ``status``).

    Raises:
        UserError: ``run.json`` is missing or not valid, as documented in ``facts``.
    """
    return status(run, facts(run)).startswith("running")


def status(run: Path, record: Mapping[str, Any]) -> str:
    """The status of a run, as text.

    The text is the status in ``run.json``, with two exceptions. A run whose process ended without writing its
    status, for example because of SIGKILL, is ``killed`` instead of ``running``. A run that was started on another
    machine is ``running on HOST``, because processes of another machine cannot be checked.

    Args:
        run: the directory of the run.
        record: the contents of ``run.json``.
    """
    stated, host = str(record.get("status")), record.get("host")
    if stated != "running":
        return stated
    if host != platform.node():
        return f"running on {host}" if host else "running"
    try:
        trains = locks.is_held(run)
    except locks.NoLocks:
        trains = _exists(record.get("pid"))
    except OSError:  # another user's directory: nothing is known
        trains = True
    return "running" if trains else "killed"


def _exists(process: Any) -> bool:
    """Whether this machine has a process with the id ``process``. The id may be that of another, later process."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, TypeError, OverflowError):
        return False
    return True


def runs(directory: Path) -> list[Path]:
    """The directories of all runs in the directory of a run, an ensemble or a sweep.

    For a single run, the list contains only ``directory``. For an ensemble, it contains the directories of the
    members. For a sweep, it contains the directories of the jobs. A job that is an ensemble is replaced by
    the directories of its members. Members and jobs are sorted by number.

    Raises:
        UserError: ``directory`` does not contain a run, an ensemble or a sweep.
    """
    found = numbered(directory / "members") or numbered(directory) or _named(directory)
    if not found:
        facts(directory)
        return [directory]
    return [run for job in found for run in numbered(job / "members") or [job]]


def _named(sweep: Path) -> list[Path]:
    """The directories of the jobs of a sweep in which ``hydra.sweep.subdir`` names them, sorted by name."""
    if not (sweep / "sweep.json").is_file():
        return []
    places = (path.parent for path in sweep.rglob(_NAME))
    return sorted(place for place in places if "members" not in place.relative_to(sweep).parts)


def numbered(folder: Path) -> list[Path]:
    """The sub-folders that have a number as their name and contain a run, sorted by number."""
    found = {files.number(p.name): p for p in folder.iterdir() if holds_run(p)} if folder.is_dir() else {}
    return [path for number, path in sorted((n, path) for n, path in found.items() if n is not None)]
