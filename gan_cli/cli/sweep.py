"""The jobs of a sweep, and the files and the table that describe them: ``sweep.json`` and ``sweep.csv``."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from gan_cli.cli import sweep_table
from gan_cli.config.identity import is_free
from gan_cli.errors import UserError
from gan_cli.storage import files, locks, run_directory
from gan_cli.storage.run_directory import facts_or_empty, holds_run, numbered

_STATUS = {0: "finished", 1: "failed", 2: "refused", 3: "diverged", 130: "stopped", 137: "killed", 143: "stopped"}


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: the number of the job in the sweep.
        overrides: the overrides of ``gan-train`` for this job.
        directory: the directory of the run that the job trains.
        exit_status: the exit status of the job's process. The value is None until the process ends, and is negative
            if a signal killed the process.
        started: whether the job's process has started.
    """

    number: int
    overrides: list[str]
    directory: Path
    exit_status: int | None = None
    started: bool = False

    @property
    def status(self) -> str:
        """The status of the job as text.

        The text is "waiting", "running", "finished", "failed", "refused" (the input was wrong), "diverged",
        "stopped", "killed", "killed by signal N", or "exit N" for any other exit status.
        """
        if self.exit_status is None:
            return "running" if self.started else "waiting"
        if self.exit_status < 0:
            return f"killed by signal {-self.exit_status}"
        return _STATUS.get(self.exit_status, f"exit {self.exit_status}")

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of ``run.json`` in the directory of the job. If the file cannot be read, they are empty."""
        return facts_or_empty(self.directory)

    @property
    def objective(self) -> float | None:
        """The best value of the objective so far; None if the run has not been evaluated."""
        return _objective(self.facts)

    @property
    def output(self) -> Path:
        """The path of the file that receives stdout and stderr of the job's process."""
        return self.directory / "output.txt"

    def record(self) -> dict[str, Any]:
        """The job as an entry of ``sweep.json``."""
        facts = self.facts
        return {
            "job": self.number,
            "overrides": self.overrides,
            "status": self.status,
            "dir": str(self.directory),
            "objective": _objective(facts),
            "final": facts.get("final", {}),
        }

    def complaint(self) -> str:
        """The error message of the job's process, or an empty text if the process succeeded or still runs."""
        if self.exit_status in (0, None):
            return ""
        try:
            lines = [line for line in self.output.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        first = next((i for i, line in enumerate(lines) if line.startswith("gan-train: ")), len(lines) - 1)
        return "".join(f"\n  {line}" for line in lines[first:][:5])


class Sweep:
    """The jobs that a sweeper has submitted so far. Writes ``sweep.json`` and ``sweep.csv``, and prints a table.

    Args:
        directory: the directory of the sweep.

    Attributes:
        jobs: the jobs in the order of their submission.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.jobs: list[Job] = []
        self._before = _read(directory / "sweep.json")
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    @classmethod
    def of_directory(cls, directory: Path) -> Sweep:
        """A sweep whose jobs another launcher runs, reconstructed from the directories of these jobs."""
        sweep = cls(directory)
        for place in numbered(directory):
            job = Job(int(place.name), [], place, started=True)
            facts = job.facts
            job.overrides = [o for o in facts.get("command", ())[1:] if not o.startswith(("hydra", "resume="))]
            job.exit_status = {name: status for status, name in _STATUS.items()}.get(
                run_directory.status(place, facts)
            )
            sweep.jobs.append(job)
        return sweep

    def job(self, number: int, overrides: list[str], directory: Callable[[int], Path]) -> Job:
        """Add a job to the sweep, and return the job.

        The job gets the smallest number from ``number`` upwards that belongs to no other job. After the sweep is
        started again, ``number`` may belong to another job of the earlier start, because an adaptive search can
        submit different jobs at each start. A grid search submits the same jobs at each start.

        Args:
            number: the number that the sweeper suggests for the job.
            overrides: the overrides of ``gan-train`` for the job.
            directory: a function that returns the directory of the job with a number.

        Raises:
            UserError: another job of the sweep has the same directory.
        """
        taken = {job.number for job in self.jobs}
        while number in taken or _past(self._before.get(number, {}).get("overrides", overrides)) != _past(
            overrides
        ):
            number += 1
        job = Job(number, overrides, directory(number))
        if any(other.directory == job.directory for other in self.jobs):
            raise UserError(
                f"hydra.sweep.subdir: several jobs would train in {job.directory}. Let the name depend on the job, "
                "e.g. 'hydra.sweep.subdir=${hydra.job.num}'."
            )
        self.jobs.append(job)
        return job

    def begin(self, batch: Sequence[Job]) -> None:
        """Write the records of the sweep before the jobs of ``batch`` start.

        A job that finished in an earlier start of the sweep gets the exit status 0, and does not run again.
        """
        for job in batch:
            before = self._before.get(job.number, {})
            same = _without_resume(before.get("overrides", ())) == _without_resume(job.overrides)
            if same and before.get("status") == "finished" and holds_run(job.directory):
                job.exit_status = 0
                self.say(f"job {job.number}: already finished")
        self.write()

    def say(self, line: str) -> None:
        """Print a line, unless the output is a terminal, which shows the table instead."""
        if not self._live:
            print(line, flush=True)

    def tell(self) -> None:
        """Show the current table, if the output is a terminal."""
        if self._live:
            if not self._live.is_started:
                self._live.start()
            self._live.update(sweep_table.table(self.jobs), refresh=True)

    def write(self) -> None:
        """Write ``sweep.json`` and ``sweep.csv``. An interrupted write leaves no partial file."""
        _write(self.directory, self._before | {job.number: job.record() for job in self.jobs})

    def end(self) -> None:
        """Print the final table. If the output is a terminal, also print the error messages of the jobs."""
        if self._live and self._live.is_started:
            self._live.update(sweep_table.table(self.jobs), refresh=True)
            self._live.stop()
            for job in self.jobs:
                if complaint := job.complaint():
                    print(f"job {job.number}: {job.status}{complaint}")
        elif self.jobs:
            # Without a terminal, the table is wide enough to contain whole paths.
            Console(width=160).print(sweep_table.table(self.jobs))


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """A context manager that locks the directory of a sweep. On a file system without locks, it has no effect.

    Raises:
        UserError: another process runs a sweep in the directory.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.acquire(directory))
        except locks.NoLocks:
            pass  # each run of the sweep logs a warning
        except locks.Held:
            raise UserError(
                f"{directory}: another process runs a sweep in this directory. Wait until the process ends, or "
                "choose another name."
            ) from None
        yield


def settle(directory: Path) -> None:
    """Correct ``sweep.json`` and ``sweep.csv`` of a sweep whose process was killed.

    Such a process leaves jobs with the status "running". If no process trains the run of such a job, the job gets
    the status of its run. The files stay as they are while the process of the sweep lives, or if they cannot be
    written.
    """
    with contextlib.suppress(OSError, KeyError, locks.Held), contextlib.ExitStack() as stack:
        if any(entry.get("status") == "running" for entry in _read(directory / "sweep.json").values()):
            with contextlib.suppress(locks.NoLocks):
                stack.enter_context(locks.acquire(directory))
            entries = _read(directory / "sweep.json")
            _write(directory, {number: _settled(directory, entry) for number, entry in entries.items()})


def _settled(directory: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of ``sweep.json``, with the status of the job's run in place of "running"."""
    run = directory / Path(entry["dir"]).name
    if entry["status"] != "running":
        return entry
    facts = facts_or_empty(run)
    status = run_directory.status(run, facts) if facts else "killed"
    if status.startswith("running"):
        return entry
    return entry | {"status": status, "objective": _objective(facts), "final": facts.get("final", {})}


def _write(directory: Path, by_number: dict[int, dict[str, Any]]) -> None:
    records = [by_number[number] for number in sorted(by_number)]
    files.write_json(directory / "sweep.json", records)
    files.write_bytes(directory / "sweep.csv", sweep_table.csv_text(records).encode())


@contextlib.contextmanager
def followed(directory: Path, every: float = 5.0) -> Iterator[None]:
    """A context manager that updates ``sweep.json`` and ``sweep.csv`` while another launcher runs the jobs.

    A thread reads the states of the jobs from their directories.

    Args:
        directory: the directory of the sweep.
        every: the time between updates, in seconds.
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
    value: float | None = (facts.get("objective") or {}).get("value")
    return value


def _read(path: Path) -> dict[int, dict[str, Any]]:
    """A mapping from job numbers to the entries of ``sweep.json`` that an earlier start has written.

    If the file is missing or damaged, the mapping is empty.
    """
    try:
        entries = files.read_json(path)
        return {
            entry["job"]: entry
            for entry in entries
            if isinstance(entry["overrides"], list) and isinstance(entry["job"], int)
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _without_resume(overrides: Sequence[str]) -> set[str]:
    return set(overrides) - {"resume=auto"}


def _past(overrides: Sequence[str]) -> set[str]:
    """The set of the overrides that set an option which a resumed run cannot change."""
    return {override for override in overrides if not is_free(override.lstrip("+~").split("=")[0])}
