"""What a run writes about itself: ``run.json`` and ``metrics.jsonl``."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from gan_cli.storage import files
from gan_cli.storage.directory import FORMAT


class Journal:
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
        self.before = self._before()
        started = {"status": "running", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._facts: dict[str, Any] = {"format": FORMAT, **started, **facts, "history": self._history()}
        self.written = False
        self._start = time.monotonic()

    def note(self, **facts: Any) -> None:
        """Add facts, to be written with the next change of status."""
        self._facts |= facts

    def _before(self) -> dict[str, Any]:
        """What an earlier start has left, or nothing."""
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

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


class MetricsLog:
    """``metrics.jsonl``: one object a logged step, in order, none twice."""

    def __init__(self, directory: Path, step: int):
        """Keep the records up to ``step`` and forget the rest, a half-written last line included."""
        self.path = directory / "metrics.jsonl"
        self.records: list[dict[str, Any]] = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    record = json.loads(line)
                    if record["step"] <= step:
                        self.records.append(record)
        self._rewrite()

    def latest(self, step: int) -> dict[str, float]:
        """The metrics of this step, if it was logged."""
        last = self.records[-1] if self.records else {}
        own = ("step", "steps_per_second", "time")
        return {k: v for k, v in last.items() if k not in own} if last.get("step") == step else {}

    def write(self, step: int, metrics: dict[str, float], rate: float | None) -> dict[str, Any]:
        record = files.jsonable({"step": step, **metrics, "steps_per_second": rate, "time": time.time()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(record))
        return record

    def amend(self, step: int, metrics: dict[str, float]) -> dict[str, Any]:
        """Add figures to what was logged at this step, at which the run was resumed."""
        if not self.records or self.records[-1]["step"] != step:
            return self.write(step, metrics, None)
        self.records[-1] |= files.jsonable(metrics)
        self._rewrite()
        return self.records[-1]

    def _rewrite(self) -> None:
        files.write(self.path, lambda file: file.write("".join(map(self._line, self.records)).encode()))

    @staticmethod
    def _line(record: dict[str, Any]) -> str:
        return json.dumps(record) + "\n"
