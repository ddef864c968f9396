"""``metrics.jsonl``: the logged metrics of a run, one JSON object (a record) per logged step."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_cli.storage import files

_NAME = "metrics.jsonl"
_TAIL = 8192  # number of bytes at the end of the file that `last` reads


def read(run: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a run in the order of the file. Incomplete and invalid lines are skipped."""
    with contextlib.suppress(OSError), (run / _NAME).open(encoding="utf-8", errors="replace") as lines:
        yield from filter(None, map(_record, lines))


def last(run: Path) -> dict[str, Any]:
    """The newest record of a run, or an empty dictionary. Only the end of the file is read."""
    with contextlib.suppress(OSError), (run / _NAME).open("rb") as file:
        file.seek(max(file.seek(0, 2) - _TAIL, 0))
        for line in reversed(file.read().decode(errors="replace").splitlines()):
            if record := _record(line):
                return record
    return {}


def _record(line: str) -> dict[str, Any] | None:
    """The record in a line, or None if the line is not JSON or has no valid step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if isinstance(step, int | float) and not isinstance(step, bool) and abs(step) < 1e308 else None


class MetricsLog:
    """Writer of ``metrics.jsonl``, which has at most one record per step, in ascending order of the steps.

    Records after ``step`` and incomplete lines are removed when the file is opened, because a run that resumes at
    ``step`` logs the later steps again.

    Args:
        directory: directory of the run.
        step: the step at which the run starts or resumes.
    """

    def __init__(self, directory: Path, step: int):
        self.path = directory / _NAME
        self.records = [record for record in read(directory) if record["step"] <= step]
        self._rewrite()

    def latest(self, step: int) -> dict[str, float]:
        """The metrics of the step at which the run resumed, or an empty dictionary if it was not logged."""
        last = self.records[-1] if self.records else {}
        added = ("step", "steps_per_second", "time")
        return {k: v for k, v in last.items() if k not in added} if last.get("step") == step else {}

    def write(self, step: int, metrics: dict[str, float], rate: float | None) -> dict[str, Any]:
        """Append a record and return it.

        Args:
            step: the logged step.
            metrics: values by name. Infinite values and NaN are written as null.
            rate: training speed in steps per second, or None if it was not measured.
        """
        record: dict[str, Any] = files.jsonable(
            {"step": step, **metrics, "steps_per_second": rate, "time": time.time()}
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(record))
        return record

    def amend(self, step: int, metrics: dict[str, float]) -> dict[str, Any]:
        """Add metrics to the record of ``step``, at which the run resumed, and return the record.

        If the step has no record, the function appends a record.
        """
        if not self.records or self.records[-1]["step"] != step:
            return self.write(step, metrics, None)
        record = self.records[-1]
        record |= files.jsonable(metrics)
        self._rewrite()
        return record

    def _rewrite(self) -> None:
        files.write(self.path, lambda file: file.write("".join(map(self._line, self.records)).encode()))

    @staticmethod
    def _line(record: dict[str, Any]) -> str:
        return json.dumps(record) + "\n"
