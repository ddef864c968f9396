"""The default launcher of sweeps: a child process a job, ``hydra.launcher.n_jobs`` at a time.

One job that raises, exits, diverges or is killed by the system costs only itself. Hydra's basic launcher runs
jobs in its own process: there, an exit or a kill takes the rest of the sweep along.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from gan_cli.cli.sweep import Job, Sweep
from gan_cli.errors import UserError
from gan_cli.training.signals import StopSignal

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
_POLL = 0.1  # seconds between looks at the processes
_TELL = 1.0  # and between drawings of the table
_MEMORY = 0.9  # the share of a GPU's memory that the jobs on it are given together


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep, each as ``gan-train`` in a process of its own.

    Args:
        n_jobs: how many at a time. They share the machine's cores and GPUs evenly: a job has one GPU, or, where
            there are more jobs than GPUs, a part of one's memory.
    """

    # This process's sweep, of which a sweeper gives one batch of jobs after the other.
    sweep: ClassVar[Sweep | None] = None

    def __init__(self, n_jobs: int = 1):
        self._slots = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if not isinstance(self._slots, int) or self._slots < 1:
            raise UserError(f"hydra.launcher.n_jobs={self._slots}: must be a whole number of at least 1.")
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if ProcessLauncher.sweep is None:
            ProcessLauncher.sweep = Sweep(Path(self._config.hydra.sweep.dir))
        sweep = ProcessLauncher.sweep
        batch = []
        for i, overrides in enumerate(job_overrides):
            config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            batch.append(sweep.job(initial_job_idx + i, list(overrides), Path(config.hydra.sweep.dir)))
        sweep.begin(batch)
        self._run(sweep, [job for job in batch if job.exit_status is None])
        # A failed job is told of in the table and in the exit status of the sweep. An exception here would
        # make the sweeper leave out the batches that follow.
        return [
            JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective)
            for job in batch
        ]

    def _run(self, sweep: Sweep, batch: Sequence[Job]) -> None:
        """Run all of these jobs to their ends.

        Raises:
            SweepStopped: a stop signal came; the jobs that were running got it too and have ended, no others began.
        """
        waiting, running = list(batch), {}  # type: list[Job], dict[int, tuple[Job, subprocess.Popen]]
        told = 0.0
        with StopSignal() as stop:
            while (waiting and not stop.received) or running:
                for slot in range(self._slots):
                    if waiting and slot not in running and not stop.received:
                        job = waiting.pop(0)
                        running[slot] = job, self._start(job, slot)
                        sweep.say(f"job {job.number}: {shlex.join(job.overrides)}")
                        sweep.write()
                try:
                    time.sleep(_POLL)
                    if stop.received:
                        for _, process in running.values():
                            process.send_signal(stop.received)
                        for _, process in running.values():
                            process.wait()
                except KeyboardInterrupt:  # a second one: at once
                    for _, process in running.values():
                        process.terminate()
                        process.wait()
                for slot, (job, process) in list(running.items()):
                    if (status := process.poll()) is not None:
                        job.exit_status = status
                        del running[slot]
                        sweep.say(f"job {job.number}: {job.status}{job.complaint()}")
                        sweep.write()
                if time.monotonic() - told > _TELL:
                    told = time.monotonic()
                    sweep.tell()
        if stop.received:
            raise SweepStopped(stop.received)

    def _start(self, job: Job, slot: int) -> subprocess.Popen:
        hydra = [o for o in self._config.hydra.overrides.hydra if not o.lstrip("+~").startswith(_SWEEP_ONLY)]
        command = [sys.executable, "-m", "gan_cli.cli.train", *job.overrides, *hydra]
        command += [f"hydra.run.dir='{job.directory}'", f"hydra.job.num={job.number}"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        job.directory.mkdir(parents=True, exist_ok=True)
        job.started = True
        with job.output.open("ab") as output:
            # In a session of its own, so that the terminal's SIGINT reaches it once, from here, and it can save.
            process = subprocess.Popen(
                command,
                env=environment | _part_of_the_gpus(slot, self._slots),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _give_cores(process.pid, slot, self._slots)
        return process


class SweepStopped(BaseException):
    """A signal stopped the sweep; its jobs have saved and ended. Not an Exception: no sweeper should catch it."""


def _part_of_the_gpus(slot: int, slots: int) -> dict[str, str]:
    """What the environment of a job in this slot says of the GPU that it may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [name for name in visible.split(",") if name] if visible is not None else _gpus()
    if slots == 1 or not gpus:
        return {}
    found = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
    together = len(range(slot % len(gpus), slots, len(gpus)))
    if together > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_MEMORY / together:.3f}"
    return found


def _gpus() -> list[str]:
    """The numbers of this machine's NVIDIA GPUs. (Asking JAX would start it in the launcher as well.)"""
    return sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))


def _give_cores(process: int, slot: int, slots: int) -> None:
    """Let a process run on its part of the cores only: XLA makes a thread for each that it may use."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if 1 < slots <= len(cores):
            os.sched_setaffinity(process, cores[slot::slots])


def register() -> None:
    """Make the launcher known to Hydra, which takes plugins whose module is in ``hydra_plugins`` only.

    The class has such a name while it is registered. Nothing is installed there, so no other Hydra program sees it,
    and a pickle of Hydra's state, as submitit makes, names the module where the class really is.
    """
    own = ProcessLauncher.__module__
    ProcessLauncher.__module__ = "hydra_plugins.gan_cli"
    Plugins.instance().register(ProcessLauncher)
    ProcessLauncher.__module__ = own
