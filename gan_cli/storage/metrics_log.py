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
_TAIL = 8192  # the function `last` reads this number of bytes from the end of the file


def read(run: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a run in the order of the file, without incomplete and invalid lines."""
    with contextlib.suppress(OSError), (run / _NAME).open(encoding="utf-8", errors="replace") as lines:
        yield from filter(None, map(_record, lines))


def last(run: Path) -> dict[str, Any]:
    """The last record of a run, or an empty dictionary if there is none. Only the end of the file is read."""
    with contextlib.suppress(OSError), (run / _NAME).open("rb") as file:
        file.seek(max(file.seek(0, 2) - _TAIL, 0))
        for line in reversed(file.read().decode(errors="replace").splitlines()):
            if record := _record(line):
                return record
    return {}


def _record(line: str) -> dict[str, Any] | None:
    """The record in a line, or None if the line is not a JSON object with a valid step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if isinstance(step, int | float) and not isinstance(step, bool) and abs(step) < 1e308 else None


class MetricsLog:
    """Writer of ``metrics.jsonl``, which has at most one record per step, in ascending order of the steps.

    The constructor removes records of steps after ``step``, because a run that resumes at ``step`` logs the later
    steps again. It also removes incomplete lines.

    Args:
        directory: directory of the run.
        step: the step at which the run starts or resumes.
    """

    def __init__(self, directory: Path, step: int):
        self.path = directory / _NAME
        self.records = [record for record in read(directory) if record["step"] <= step]
        self._rewrite()

    def latest(self, step: int) -> dict[str, float]:
        """The metrics logged for ``step`` before the run resumed at that step; empty if there are none."""
        last = self.records[-1] if self.records else {}
        added = ("step", "steps_per_second", "time")
        return {k: v for k, v in last.items() if k not in added} if last.get("step") == step else {}

    def write(self, step: int, metrics: dict[str, float], rate: float | None) -> dict[str, Any]:
        """Append a record and return it.

        Args:
            step: the logged step.
            metrics: dictionary from names of metrics to values. Infinite values and NaN are written as null.
            rate: training speed in steps per second, or None if it was not measured.
        """
        record: dict[str, Any] = files.jsonable(
            {"step": step, **metrics, "steps_per_second": rate, "time": time.time()}
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(record))
        return record

    def amend(self, step: int, metrics: dict[str, float]) -> dict[str, Any]:
        """Add metrics to the record of the step at which the run resumed, and return the record.

        If the step has no record, the method appends a record.

        Args:
            step: the step at which the run resumed.
            metrics: dictionary from names of metrics to values. Infinite values and NaN are written as null.
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
