"""``run.json``: the configuration, environment, status and history of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gan_cli.storage import files
from gan_cli.storage.run_directory import FORMAT, facts_or_empty


class RunRecord:
    """Writer of ``run.json``, which is rewritten at every change of the run's status.

    Args:
        directory: directory of the run.
        facts: dictionary of the initial entries of ``run.json``, for example the configuration. The methods
            ``note`` and ``write`` add entries.

    Attributes:
        before: the contents of ``run.json`` when this object was created, or an empty dictionary for a new run.
        written: whether this object has written the file.
    """

    def __init__(self, directory: Path, facts: dict[str, Any]):
        self._path = directory / "run.json"
        self.before = facts_or_empty(directory)
        started = {"status": "running", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        # If this process fails before it trains, the file still states what earlier processes wrote.
        reached = {name: value for name, value in self.before.items() if name in ("step", "checkpoint", "init")}
        self._facts: dict[str, Any] = {"format": FORMAT, **started, **reached, **facts, "history": self._history()}
        self.written = False
        self._start = time.monotonic()

    @property
    def facts(self) -> dict[str, Any]:
        """The entries that the next call of ``write`` writes to the file."""
        return dict(self._facts)

    def note(self, **facts: Any) -> None:
        """Add entries. The next call of ``write`` writes them to the file."""
        self._facts |= facts

    def _history(self) -> list[dict[str, Any]]:
        """A list with one dictionary for each earlier start of the run, oldest first.

        A start that left the status ``running`` was killed, because this process holds the lock of the run.
        """
        if not self.before:
            return []
        kept = ("command", "started", "status", "step", "seconds")
        last = {name: self.before.get(name) for name in kept}
        if last["status"] == "running":
            last["status"] = "killed"
        return [*self.before.get("history", []), last]

    def write(self, status: str, **facts: Any) -> None:
        """Write ``run.json`` with a new status and additional entries."""
        seconds = round(time.monotonic() - self._start, 3)
        self._facts |= {"status": status, "seconds": seconds, **facts}
        files.write_json(self._path, self._facts)
        self.written = True
