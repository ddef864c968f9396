"""What becomes of the jobs of a sweep: a table while they run, ``sweep.json`` and ``sweep.csv`` beside them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from gan_cli.cli import sweep_table
from gan_cli.config.identity import is_free
from gan_cli.storage import files
from gan_cli.storage.run_directory import facts_or_empty, holds_run

_STATUS = {0: "finished", 1: "failed", 2: "refused", 3: "diverged", 130: "stopped", 143: "stopped"}


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        overrides: what its command line says beside what all jobs' do.
        exit_status: of its process, negative for a signal that killed it; None while there is none.
    """

    number: int
    overrides: list[str]
    directory: Path
    exit_status: int | None = None
    started: bool = False

    @property
    def status(self) -> str:
        if self.exit_status is None:
            return "running" if self.started else "waiting"
        if self.exit_status < 0:
            return f"killed by signal {-self.exit_status}"
        return _STATUS.get(self.exit_status, f"exit {self.exit_status}")

    @property
    def facts(self) -> dict[str, Any]:
        """What its ``run.json`` states."""
        return facts_or_empty(self.directory)

    @property
    def objective(self) -> float | None:
        return _objective(self.facts)

    @property
    def output(self) -> Path:
        """What its process printed."""
        return self.directory / "output.txt"

    def record(self) -> dict[str, Any]:
        """Its line of ``sweep.json``."""
        told = self.facts
        return {
            "job": self.number,
            "overrides": self.overrides,
            "status": self.status,
            "dir": str(self.directory),
            "objective": _objective(told),
            "final": told.get("final", {}),
        }

    def complaint(self) -> str:
        """The last thing that a process printed which did not end well."""
        if self.exit_status in (0, None):
            return ""
        try:
            lines = [line for line in self.output.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        told = next((i for i, line in enumerate(lines) if line.startswith("gan-train: ")), len(lines) - 1)
        return "".join(f"\n  {line}" for line in lines[told:][:5])


class Sweep:
    """The jobs of a sweep in its directory, of all batches that a sweeper has given so far."""

    def __init__(self, directory: Path):
        self.directory, self.jobs = directory, []  # type: Path, list[Job]
        self._before = _read(directory / "sweep.json")
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    @classmethod
    def of_directory(cls, directory: Path) -> Sweep:
        """The jobs that another launcher has run, as their directories tell."""
        sweep = cls(directory)
        places = (path for path in directory.glob("*") if path.name.isdecimal() and holds_run(path))
        for place in sorted(places, key=lambda path: int(path.name)):
            job = Job(int(place.name), [], place, started=True)
            told = job.facts
            job.overrides = [o for o in told.get("command", ())[1:] if not o.startswith(("hydra", "resume="))]
            job.exit_status = {name: status for status, name in _STATUS.items()}.get(told.get("status", ""))
            sweep.jobs.append(job)
        return sweep

    def job(self, number: int, overrides: list[str], folder: Path) -> Job:
        """A job under this number, or, where an earlier start had another there, under the next that is free.

        A grid gives the same jobs the same numbers again; a search asks for others.
        """
        taken = {job.number for job in self.jobs}
        while number in taken or _past(self._before.get(number, {}).get("overrides", overrides)) != _past(
            overrides
        ):
            number += 1
        job = Job(number, overrides, folder / str(number))
        self.jobs.append(job)
        return job

    def begin(self, batch: Sequence[Job]) -> None:
        """Take note of jobs to come; what an earlier start of this sweep has finished is finished."""
        for job in batch:
            before = self._before.get(job.number, {})
            same = _asked(before.get("overrides", ())) == _asked(job.overrides)
            if same and before.get("status") == "finished" and holds_run(job.directory):
                job.exit_status = 0
                self.say(f"job {job.number}: finished before")
        self.write()

    def say(self, line: str) -> None:
        """A line of what has happened, where no table is shown meanwhile."""
        if not self._live:
            print(line, flush=True)

    def tell(self) -> None:
        """Show where the jobs are."""
        if self._live:
            if not self._live.is_started:
                self._live.start()
            self._live.update(sweep_table.table(self.jobs), refresh=True)

    def write(self) -> None:
        """``sweep.json`` and ``sweep.csv``, whole at any moment."""
        found = self._before | {job.number: job.record() for job in self.jobs}
        records = [found[number] for number in sorted(found)]
        files.write_json(self.directory / "sweep.json", records)
        files.write_bytes(self.directory / "sweep.csv", sweep_table.csv_text(records).encode())

    def end(self) -> None:
        """Leave the table behind."""
        if self._live and self._live.is_started:
            self._live.update(sweep_table.table(self.jobs), refresh=True)
            self._live.stop()
            for job in self.jobs:
                if complaint := job.complaint():
                    print(f"job {job.number}: {job.status}{complaint}")
        elif self.jobs:
            # Wide enough for whole paths where the output is a file.
            Console(width=160).print(sweep_table.table(self.jobs))


@contextlib.contextmanager
def followed(directory: Path, every: float = 5.0) -> Iterator[None]:
    """Within it, the records of a sweep that another launcher runs follow what its jobs' directories tell.

    Args:
        every: so many seconds.
    """
    over = threading.Event()

    def follow() -> None:
        while not over.wait(every):
            sweep = Sweep.of_directory(directory)
            if sweep.jobs:
                sweep.write()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _objective(facts: dict[str, Any]) -> float | None:
    return (facts.get("objective") or {}).get("value")


def _read(path: Path) -> dict[int, dict[str, Any]]:
    """What an earlier start has noted, by number."""
    try:
        found = files.read_json(path)
        return {
            one["job"]: one for one in found if isinstance(one["overrides"], list) and isinstance(one["job"], int)
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _asked(overrides: Sequence[str]) -> set[str]:
    return set(overrides) - {"resume=auto"}


def _past(overrides: Sequence[str]) -> set[str]:
    """Those that may not change when a run goes on."""
    return {override for override in overrides if not is_free(override.lstrip("+~").split("=")[0])}
