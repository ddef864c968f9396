"""The default launcher of sweeps, which runs each job in a child process, ``hydra.launcher.n_jobs`` at a time.

A job that fails, diverges or is killed by the operating system does not affect the other jobs. Hydra's basic
launcher instead runs all jobs in the process of the sweep, so that the end of this process ends the whole sweep.
"""

from __future__ import annotations

import functools
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
from omegaconf import DictConfig, open_dict, read_write

from gan_cli.cli.sweep import Job, Sweep
from gan_cli.config.ensemble import of_jobs
from gan_cli.config.quoting import of_job, quoted
from gan_cli.errors import UserError
from gan_cli.training.signals import StopSignal

# Settings of Hydra that apply to the whole sweep. The launcher passes all other settings of Hydra to the jobs.
_SWEEP_ONLY = (
    "hydra.mode",
    "hydra.sweep",
    "hydra.run",
    "hydra/launcher",
    "hydra.launcher",
    "hydra/sweeper",
    "hydra.sweeper",
)
_POLL = 0.1  # seconds between checks whether a job has ended
_TELL = 1.0  # seconds between updates of the table on the terminal
_MEMORY = 0.9  # the fraction of a GPU's memory that all jobs on this GPU may use together


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as ``gan-train`` in a separate process.

    Args:
        n_jobs: the largest number of jobs that run at the same time. These jobs share the CPU cores evenly.
            Each job uses one GPU. If there are more jobs than GPUs, several jobs share the memory of a GPU.
    """

    # The sweep of this process, kept between calls of ``launch``, because a sweeper may submit its jobs in batches.
    sweep: ClassVar[Sweep | None] = None

    def __init__(self, n_jobs: int = 1):
        self._slots = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the configuration of the sweep. Hydra calls this method before ``launch``.

        Raises:
            UserError: ``n_jobs`` is not an integer of at least 1.
        """
        if not isinstance(self._slots, int) or self._slots < 1:
            raise UserError(f"hydra.launcher.n_jobs={self._slots}: must be an integer of at least 1, e.g. 2.")
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs until all of them have ended.

        Args:
            job_overrides: for each job, a list of its overrides.
            initial_job_idx: the number of the first job.

        Returns:
            A list with Hydra's result object for each job, which contains the value of the job's objective.
        """
        if ProcessLauncher.sweep is None:
            ProcessLauncher.sweep = Sweep(Path(self._config.hydra.sweep.dir))
        sweep = ProcessLauncher.sweep
        batch = []
        for i, texts in enumerate(job_overrides):
            overrides = [of_job(text) for text in texts]
            config = self._context.config_loader.load_sweep_config(self._config, overrides)
            batch.append(sweep.job(initial_job_idx + i, overrides, functools.partial(_directory, config)))
        if self._slots == 1 and not initial_job_idx and (instead := of_jobs([job.overrides for job in batch])):
            print(
                "The jobs differ only in numbers, so that one program can train them at a lower cost "
                f"(gan_cli/engine/README.md#ensembles): gan-train {shlex.join(instead)}",
                flush=True,
            )
        sweep.begin(batch)
        self._run(sweep, [job for job in batch if job.exit_status is None])
        # The table and the exit status of the sweep report failed jobs. An exception here would make the sweeper
        # skip the remaining batches.
        return [
            JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective)
            for job in batch
        ]

    def _run(self, sweep: Sweep, batch: Sequence[Job]) -> None:
        """Run the jobs of ``batch``, at most ``n_jobs`` at a time, until all jobs have ended.

        No job survives this function, even if it raises an error.

        Raises:
            SweepStopped: the launcher received a stop signal. It first passes the signal to the running jobs, and
                waits until they have ended. It starts no further jobs. A second SIGINT kills the running jobs.
        """
        waiting = list(batch)
        running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
        updated, passed_on = 0.0, False
        # The system closes the writing end when this process ends, even if the process is killed, and the jobs then
        # read the end of the pipe.
        pipe, alive = os.pipe()
        with StopSignal() as stop:
            try:
                while (waiting and not stop.received) or running:
                    for slot in range(self._slots):
                        if waiting and slot not in running and not stop.received:
                            job = waiting.pop(0)
                            running[slot] = job, self._start(job, slot, pipe, sweep.directory)
                            sweep.write()
                            sweep.say(f"job {job.number}: {shlex.join(job.overrides)}")
                    time.sleep(_POLL)
                    if stop.received and not passed_on:
                        passed_on = True
                        for _, process in running.values():
                            process.send_signal(stop.received)
                    for slot, (job, process) in list(running.items()):
                        if (status := process.poll()) is not None:
                            job.exit_status = status
                            del running[slot]
                            sweep.write()
                            sweep.say(f"job {job.number}: {job.status}{job.complaint()}")
                    if time.monotonic() - updated > _TELL:
                        updated = time.monotonic()
                        sweep.tell()
            except KeyboardInterrupt:  # a second SIGINT
                for _, process in running.values():
                    process.kill()
            finally:
                os.close(alive)  # after an error, the jobs that still run stop and save
                os.close(pipe)
                for job, process in running.values():
                    job.exit_status = process.wait()
        if stop.received:
            raise SweepStopped(stop.received)

    def _start(self, job: Job, slot: int, pipe: int, sweep: Path) -> subprocess.Popen[bytes]:
        hydra = [o for o in self._config.hydra.overrides.hydra if not o.lstrip("+~").startswith(_SWEEP_ONLY)]
        command = [sys.executable, "-P", "-m", "gan_cli.cli.job", str(pipe), str(sweep.resolve())]
        command += [*job.overrides, *hydra]
        command += [f"hydra.run.dir={quoted(str(job.directory))}", f"hydra.job.num={job.number}"]
        # The working folder comes last, so that no file in it replaces a module of the standard library.
        folder = str(Path.cwd())
        paths = sorted((path for path in sys.path if path), key=lambda path: path == folder)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        job.directory.mkdir(parents=True, exist_ok=True)
        job.started = True
        with job.output.open("ab") as output:
            # The job runs in a separate session, so that a terminal does not send SIGINT to the job directly. The
            # job receives the signal once, from this launcher, and can save a checkpoint.
            process = subprocess.Popen(
                command,
                env=environment | _part_of_the_gpus(slot, self._slots),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(pipe,),
            )
        _give_cores(process.pid, slot, self._slots)
        return process


def _directory(config: DictConfig, number: int) -> Path:
    """The directory of a job: ``hydra.sweep.subdir`` in ``hydra.sweep.dir``.

    Args:
        config: the configuration of the job.
        number: the number of the job.
    """
    with read_write(config), open_dict(config):
        config.hydra.job.num = number
        config.hydra.job.id = str(number)
    return Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)


class SweepStopped(BaseException):
    """Raised when a signal has stopped a sweep, after all its jobs have saved checkpoints and ended.

    The class derives from BaseException, because sweepers catch Exception and would continue the sweep.
    """


def _part_of_the_gpus(slot: int, slots: int) -> dict[str, str]:
    """The environment variables that assign a GPU, or a part of a GPU's memory, to a job.

    Args:
        slot: the index of the job among the jobs that run at the same time.
        slots: the number of jobs that run at the same time.

    Returns:
        A mapping from names of variables to values. If the jobs run one at a time, or without GPUs, the mapping is
        empty.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [name for name in visible.split(",") if name] if visible is not None else _gpus()
    if slots == 1 or not gpus:
        return {}
    variables = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
    sharing = len(range(slot % len(gpus), slots, len(gpus)))
    if sharing > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_MEMORY / sharing:.3f}"
    return variables


def _gpus() -> list[str]:
    """A list of the numbers of this machine's NVIDIA GPUs. JAX is not used, because it would reserve GPU memory."""
    return sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))


def _give_cores(process: int, slot: int, slots: int) -> None:
    """Restrict a process to a part of the CPU cores, because XLA creates a thread for each allowed core.

    Args:
        process: the id of the process.
        slot: the index of the process among the processes that share the cores.
        slots: the number of these processes.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if 1 < slots <= len(cores):
            os.sched_setaffinity(process, cores[slot::slots])


def register() -> None:
    """Register the launcher as a plugin of Hydra.

    Hydra accepts a class only if the name of its module starts with ``hydra_plugins``. The function therefore
    renames the module of the class during the registration, and restores the name afterwards, because pickles of
    the class need the real name. A real module in ``hydra_plugins`` is avoided, because other Hydra programs would
    import it.
    """
    own = ProcessLauncher.__module__
    ProcessLauncher.__module__ = "hydra_plugins.gan_cli"
    Plugins.instance().register(ProcessLauncher)
    ProcessLauncher.__module__ = own
