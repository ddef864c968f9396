"""What a run's directory holds, as data: nothing in it is composed, imported or executed."""

from __future__ import annotations

import fcntl
import platform
from pathlib import Path
from typing import Any

from gan_cli.errors import UserError
from gan_cli.storage import files

# Of run.json. 0 (unstated): the configuration holds Python paths. 1: it holds option names.
FORMAT = 1
_NAME = "run.json"


def facts(run: Path) -> dict[str, Any]:
    """What the run's ``run.json`` tells.

    Raises:
        UserError: there is no such directory, or no run in it, or one of a newer format.
    """
    if not run.is_dir():
        raise UserError(f"{run}: there is no such directory.")
    try:
        told = files.read_json(run / _NAME)
    except FileNotFoundError:
        raise UserError(f"{run}: holds no run (it has no run.json).") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: its run.json cannot be read ({error}).") from error
    if not isinstance(told, dict) or not isinstance(told.get("config"), dict):
        raise UserError(f"{run}: its run.json holds no configuration.")
    if told.get("format", 0) not in range(FORMAT + 1):
        raise UserError(
            f"{run}: was written by a newer version of gan_cli (its format is {told['format']}, and this version "
            f"reads up to {FORMAT})."
        )
    return told


def facts_or_empty(run: Path) -> dict[str, Any]:
    """What the run's ``run.json`` states, whatever its format; empty where it cannot be read."""
    try:
        found = files.read_json(run / _NAME)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holds_run(directory: Path) -> bool:
    return (directory / _NAME).is_file()


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluations that ``gan-eval`` has noted in the run's directory, oldest first."""
    try:
        kept = files.read_json(run / "evaluations.json")
    except (OSError, ValueError):
        return []
    kept = [one for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []
    return [one for one in kept if isinstance(one.get("metrics"), dict) and isinstance(one.get("step"), int)]


def in_training(run: Path) -> bool:
    """Whether a process may be training there: as ``run.json`` says, but for one of this machine that is gone."""
    told = facts(run)
    if told.get("status") != "running":
        return False
    if told.get("host") != platform.node():
        return True
    try:
        with (run / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def runs(directory: Path) -> list[Path]:
    """The run in ``directory``, the members of an ensemble, or the jobs of a sweep and their members, by number.

    Raises:
        UserError: there is none of them.
    """
    found = _numbered(directory / "members") or _numbered(directory)
    if not found:
        facts(directory)
        return [directory]
    return [run for job in found for run in _numbered(job / "members") or [job]]


def _numbered(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("*") if p.name.isdecimal() and holds_run(p)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))
