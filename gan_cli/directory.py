"""What a run's directory holds, as data: nothing in it is composed, imported or executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gan_cli.errors import UserError


def facts(run: Path) -> dict[str, Any]:
    """What the run's ``run.json`` tells.

    Raises:
        UserError: there is no such directory, or no run in it.
    """
    if not run.is_dir():
        raise UserError(f"{run}: there is no such directory.")
    try:
        told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{run}: holds no run (it has no run.json).") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: its run.json cannot be read ({error}).") from error
    if not isinstance(told, dict) or not isinstance(told.get("config"), dict):
        raise UserError(f"{run}: its run.json holds no configuration.")
    return told


def holds_run(directory: Path) -> bool:
    return (directory / "run.json").is_file()


def runs(directory: Path) -> list[Path]:
    """The run in ``directory``, the members of an ensemble, or the jobs of a sweep, by number.

    Raises:
        UserError: there is none of them.
    """
    for folder in (directory / "members", directory):
        numbered = [p for p in folder.glob("*") if p.name.isdecimal() and holds_run(p)] if folder.is_dir() else []
        if numbered:
            return sorted(numbered, key=lambda path: int(path.name))
    facts(directory)
    return [directory]
