"""The default launcher of sweeps: a child process a job.

One job that raises, exits, diverges or is killed by the system costs only itself. Hydra's basic launcher runs
jobs in its own process: there, an exit or a kill takes the rest of the sweep along.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gan_cli.signals import CAUGHT

# What belongs to the sweep as a whole; all other settings of Hydra go on to the jobs.
_SWEEP_ONLY = (
    "hydra.mode",
    "hydra.sweep",
    "hydra.run",
    "hydra/launcher",
    "hydra.launcher",
    "hydra/sweeper",
    "hydra.sweeper",
)
_STATUS = {0: "finished", 1: "failed", 2: "refused", 3: "diverged", 130: "stopped", 143: "stopped"}


@dataclass(frozen=True)
class Job:
    """What became of one job."""

    number: int
    overrides: list[str]
    directory: Path
    exit_status: int

    @property
    def status(self) -> str:
        if self.exit_status < 0:
            return f"killed by signal {-self.exit_status}"
        return _STATUS.get(self.exit_status, f"exit {self.exit_status}")

    @property
    def facts(self) -> dict[str, Any]:
        """What its directory tells of it."""
        try:
            return json.loads((self.directory / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep one after the other, each as ``gan-train`` in a process of its own."""

    __module__ = "hydra_plugins.gan_cli"
    # The jobs of this process's sweep, over all its batches: the table at its end shows them.
    jobs: ClassVar[list[Job]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return [self._job(initial_job_idx + i, list(overrides)) for i, overrides in enumerate(job_overrides)]

    def _job(self, number: int, overrides: list[str]) -> JobReturn:
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        directory = Path(config.hydra.sweep.dir) / str(number)
        hydra = [o for o in self._config.hydra.overrides.hydra if not o.lstrip("+~").startswith(_SWEEP_ONLY)]
        command = [sys.executable, "-m", "gan_cli.cli.train", *overrides, *hydra]
        command += [f"hydra.run.dir='{directory}'", f"hydra.job.num={number}"]
        print(f"\njob {number}: {shlex.join(overrides)}", flush=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        status, stopped = _wait(subprocess.Popen(command, env=environment, start_new_session=True))
        job = Job(number, overrides, directory, status)
        self.jobs.append(job)
        if stopped:
            raise SweepStopped(stopped)
        # A failed job is told of in the table and in the exit status of the sweep. An exception here would
        # make the sweeper leave out the batches that follow.
        objective = job.facts.get("objective", {}).get("value")
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=objective)


class SweepStopped(BaseException):
    """A signal stopped the sweep; its job has saved and ended. Not an Exception, as no sweeper should catch it."""


def _wait(process: subprocess.Popen) -> tuple[int, int | None]:
    """Wait for a job, passing on the signals that this process gets: its exit status, and the first signal.

    The job is in a session of its own, so that the terminal's SIGINT reaches it once, from here, and it can save.
    """
    received: list[int] = []

    def forward(number: int, frame: Any) -> None:
        received.append(number)
        process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, forward) for number in CAUGHT}
    try:
        status = process.wait()
        return status, received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def register() -> None:
    """Make the launcher known to Hydra, which takes plugins from the namespace ``hydra_plugins`` only.

    An alias in that namespace is enough: nothing is installed there, so no other Hydra program sees it.
    """
    try:
        namespace = importlib.import_module("hydra_plugins")
    except ImportError:
        namespace = ModuleType("hydra_plugins")
        namespace.__path__ = []
        sys.modules["hydra_plugins"] = namespace
    module = sys.modules[register.__module__]
    setattr(namespace, "gan_cli", module)  # noqa: B010
    sys.modules["hydra_plugins.gan_cli"] = module
    Plugins.instance().register(ProcessLauncher)


def print_table(jobs: Sequence[Job], console: Console | None = None) -> None:
    """Overrides, status, final figures and directory of every job."""
    table = Table("job", "overrides", "status", "final", "directory", title="sweep", title_justify="left")
    for job in jobs:
        final = job.facts.get("final", {})
        shown = [
            f"{name} {value:.4g}" for name, value in final.items() if name.endswith("/loss") and value is not None
        ]
        figures = [f"{name} {final[name]:.4g}" for name in ("modes", "quality") if name in final]
        if objective := job.facts.get("objective"):
            figures.append(f"best {objective['name']} {objective['value']:.4g}")
        table.add_row(
            str(job.number),
            escape(" ".join(job.overrides)),
            job.status,
            "\n".join(shown + figures),
            str(job.directory),
        )
    # Wide enough for whole paths where the output is a file.
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    console.print(table)
