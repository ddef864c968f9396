"""``run.json``: what a run is and how it stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gan_cli.storage import files
from gan_cli.storage.run_directory import FORMAT, facts_or_empty


class RunRecord:
    """``run.json``: what the run is and how it stands, written whole at every change.

    Args:
        directory: of the run.
        facts: what it is; what ``write`` is given is added.

    Attributes:
        before: what an earlier start had left there.
        written: whether this start has written anything.
    """

    def __init__(self, directory: Path, facts: dict[str, Any]):
        self._path = directory / "run.json"
        self.before = facts_or_empty(directory)
        started = {"status": "running", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._facts: dict[str, Any] = {"format": FORMAT, **started, **facts, "history": self._history()}
        self.written = False
        self._start = time.monotonic()

    def note(self, **facts: Any) -> None:
        """Add facts, to be written with the next change of status."""
        self._facts |= facts

    def _history(self) -> list[dict[str, Any]]:
        """The earlier starts of this run, oldest first: what each was told, and how it stood when it ended."""
        if not self.before:
            return []
        kept = ("command", "started", "status", "step", "seconds")
        return [*self.before.get("history", []), {name: self.before.get(name) for name in kept}]

    def write(self, status: str, **facts: Any) -> None:
        seconds = round(time.monotonic() - self._start, 3)
        self._facts |= {"status": status, "seconds": seconds, **facts}
        files.write_json(self._path, self._facts)
        self.written = True
