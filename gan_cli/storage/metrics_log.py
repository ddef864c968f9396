"""``metrics.jsonl``: what a run has logged, one object a step."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_cli.storage import files

_NAME = "metrics.jsonl"
_TAIL = 8192  # bytes at the end of the file that hold the newest record


def read(run: Path) -> Iterator[dict[str, Any]]:
    """The records of a run, in the order of the file; a line that is no record, such as half a line, is skipped."""
    with contextlib.suppress(OSError), (run / _NAME).open(encoding="utf-8", errors="replace") as lines:
        yield from filter(None, map(_record, lines))


def last(run: Path) -> dict[str, Any]:
    """The newest record of a run, without reading the others; empty where there is none."""
    with contextlib.suppress(OSError), (run / _NAME).open("rb") as file:
        file.seek(max(file.seek(0, 2) - _TAIL, 0))
        for line in reversed(file.read().decode(errors="replace").splitlines()):
            if record := _record(line):
                return record
    return {}


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if isinstance(step, int | float) and not isinstance(step, bool) and abs(step) < 1e308 else None


class MetricsLog:
    """``metrics.jsonl``: one object a logged step, in order, none twice."""

    def __init__(self, directory: Path, step: int):
        """Keep the records up to ``step`` and forget the rest, a half-written last line included."""
        self.path = directory / _NAME
        self.records = [record for record in read(directory) if record["step"] <= step]
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
