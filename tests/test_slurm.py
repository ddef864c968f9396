"""Batch jobs on a real Slurm, of this machine alone: what is cut off goes on, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY, command, environment
from test_run import manifest, records

ROOT = Path(__file__).parents[1]
CLUSTER, SCRIPT = ROOT / "scripts/slurm/cluster", ROOT / "scripts/slurm/train.sbatch"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) or os.getuid() != 0,
        reason="apt-get install slurm-wlm munge, as root",
    ),
]
STEPS = 6000
RUN = [
    *TINY,
    f"train.steps={STEPS}",
    "train.steps_per_call=50",
    "train.log_every=500",
    "train.checkpoint_every=1000",
]
RUN += ["logger=none"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A cluster of one node; the environment that its commands need."""
    place = tmp_path_factory.mktemp("slurm")
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1] // 2 * 2 - 2)
    bin_ = Path(sys.executable).parent  # where gan-train is
    own = environment(SLURM_CONF=str(place / "slurm.conf"), SLURM_PORT=port, PATH=f"{bin_}:{os.environ['PATH']}")
    started = subprocess.run([CLUSTER, "start", place], env=own, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"no cluster could be started here: {started.stderr}")
    yield own
    subprocess.run([CLUSTER, "stop", place], env=own, check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    subprocess.run(command(*RUN, "name=whole"), cwd=place, env=environment(), check=True, capture_output=True)
    return place / "outputs/whole"


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it does not come about"
        time.sleep(0.1)


def status(run: Path) -> str | None:
    try:
        return json.loads((run / "run.json").read_text())["status"]
    except OSError:
        return None


def submit(slurm: dict[str, str], place: Path, *arguments: str) -> str:
    """The number of a job with these options of sbatch's, then the README's script, then the run's own."""
    command_ = ["sbatch", "--parsable", *arguments]
    return subprocess.run(command_, env=slurm, cwd=place, check=True, capture_output=True, text=True).stdout.strip()


def hasten(job: str, run: Path, slurm: dict[str, str]) -> None:
    """Let what went back into the queue begin: by itself it waits there for two minutes.

    Not at once, though: a node refuses a job that it has ended within the last second.
    """
    time.sleep(5)

    def begins() -> bool:
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=slurm, capture_output=True)
        time.sleep(1)
        return status(run) != "stopped"

    until(begins, 180)


def slurmd_is_killed(job: str, slurm: dict[str, str]) -> None:
    """As when a node's daemon dies and is started again; its job knows nothing of it."""
    pid = Path(slurm["SLURM_CONF"]).parent / "slurmd.pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    subprocess.run(["slurmd"], env=slurm, check=True)


@pytest.mark.parametrize(
    "cut",
    [
        ["scancel", "--signal=USR1"],  # what --signal=USR1@120 sends before the time is up
        ["scontrol", "requeue"],  # what preemption does
        slurmd_is_killed,
    ],
    ids=["signal", "requeue", "slurmd"],
)
def test_cut_off_it_ends_as_if_it_had_not_been(cut, slurm, whole, tmp_path):
    run = tmp_path / "outputs/cut"
    job = submit(slurm, tmp_path, str(SCRIPT), *RUN, "name=cut")
    until(lambda: (run / "checkpoints/1000").is_dir())
    if callable(cut):
        cut(job, slurm)
    else:
        subprocess.run([*cut, job], env=slurm, check=True)
        until(lambda: status(run) == "stopped")
        hasten(job, run, slurm)
    until(lambda: status(run) == "finished")
    assert manifest(run, STEPS) == manifest(whole, STEPS)
    assert records(run) == records(whole)
    assert len(json.loads((run / "run.json").read_text())["history"]) == (0 if callable(cut) else 1)


def test_a_run_that_is_longer_than_its_time_goes_on_in_another_job(slurm, whole, tmp_path):
    """Slurm's clock is a coarse one: it sends the signal up to a minute early."""
    run = tmp_path / "outputs/cut"
    slow = [f"--config-dir={ROOT / 'tests/configs'}", "modules=[toy]", "logger=slow"]
    job = submit(slurm, tmp_path, "--time=1", "--signal=USR1@5", str(SCRIPT), *RUN[:-1], *slow, "name=cut")
    # Records are slow to write, so that it is not through by then.
    until(lambda: status(run) in ("stopped", "finished"), 180)
    assert status(run) == "stopped"
    hasten(job, run, slurm)
    # What is left takes half a minute; were it cut off once more, it would wait in the queue for two.
    until(lambda: status(run) == "finished", 400)
    assert manifest(run, STEPS) == manifest(whole, STEPS)
    assert records(run) == records(whole)


def test_two_tasks_are_one_run_and_go_on_as_two(slurm, tmp_path):
    """They meet without a setting, and a signal, which Slurm sends to both, stops both at the same step."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core is one task")
    two = ["--ntasks=2", str(SCRIPT), *RUN, "train.steps=600", "train.checkpoint_every=100", "train.devices=all"]
    submit(slurm, tmp_path, *two, "name=whole")
    whole, run = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    until(lambda: status(whole) == "finished")
    assert json.loads((whole / "run.json").read_text())["processes"] == 2
    job = submit(slurm, tmp_path, *two, "name=cut")
    until(lambda: (run / "checkpoints/100").is_dir())
    subprocess.run(["scancel", "--signal=USR1", job], env=slurm, check=True)
    until(lambda: status(run) == "stopped")
    hasten(job, run, slurm)
    until(lambda: status(run) == "finished")
    assert manifest(run, 600) == manifest(whole, 600)
    assert records(run) == records(whole)


def test_a_sweep_of_slurm_jobs_goes_on_where_it_was_cut_off(slurm, whole, tmp_path):
    """submitit puts a job that is preempted (SIGUSR2) back into the queue; ours has saved by then."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'gan_cli[sweep]'")
    sweep = ["--multirun", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", *RUN, "name=sweep", "seed=0,1"]
    process = subprocess.Popen(
        command(*sweep), cwd=tmp_path, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    run, records_ = tmp_path / "multirun/sweep/0", tmp_path / "multirun/sweep/sweep.json"
    until(lambda: (run / "checkpoints/1000").is_dir())
    until(records_.exists)
    assert "running" in {job["status"] for job in json.loads(records_.read_text())}
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%i"], env=slurm, check=True, capture_output=True, text=True
    ).stdout.split()
    (job,) = (number for number in listed if number.endswith("_0"))
    subprocess.run(["scancel", "--signal=USR2", job], env=slurm, check=True)
    until(lambda: status(run) == "stopped")
    hasten(job, run, slurm)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said[-3000:]
    assert manifest(run, STEPS) == manifest(whole, STEPS)
    jobs = json.loads(records_.read_text())
    assert [job["status"] for job in jobs] == ["finished"] * 2 and "seed=1" in jobs[1]["overrides"]
