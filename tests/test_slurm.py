"""Batch jobs on a real one-node Slurm: an interrupted run resumes, and ends like an uninterrupted run."""

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
# A logger that takes seconds for a record keeps a run from finishing before the tests interrupt it.
SLOW = [f"--config-dir={ROOT / 'tests/configs'}", "modules=[toy]", "logger=slow", "logger.slow.seconds=1"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Start a cluster of one node; yield the environment for its commands."""
    place = tmp_path_factory.mktemp("slurm")
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1] // 2 * 2 - 2)
    bin_ = Path(sys.executable).parent  # contains gan-train
    own = environment(SLURM_CONF=str(place / "slurm.conf"), SLURM_PORT=port, PATH=f"{bin_}:{os.environ['PATH']}")
    started = subprocess.run([CLUSTER, "start", place], env=own, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"cannot start a Slurm cluster: {started.stderr}")
    yield own
    subprocess.run([CLUSTER, "stop", place], env=own, check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    subprocess.run(
        command(*RUN, "logger=none", "name=whole"), cwd=place, env=environment(), check=True, capture_output=True
    )
    return place / "outputs/whole"


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"the condition did not hold within {seconds} s"
        time.sleep(0.1)


def status(run: Path) -> str | None:
    try:
        return json.loads((run / "run.json").read_text())["status"]
    except OSError:
        return None


def submit(slurm: dict[str, str], place: Path, *arguments: str) -> str:
    """Submit a job with options of sbatch, then the script, then options of the run; return the job's number."""
    command_ = ["sbatch", "--parsable", *arguments]
    return subprocess.run(command_, env=slurm, cwd=place, check=True, capture_output=True, text=True).stdout.strip()


def hasten(job: str, run: Path, slurm: dict[str, str]) -> None:
    """Start a requeued job, which would otherwise wait in the queue for two minutes.

    The function sleeps first, because a node refuses a job that ended there within the last second.
    """
    time.sleep(5)

    def begins() -> bool:
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=slurm, capture_output=True)
        time.sleep(1)
        return status(run) != "stopped"

    until(begins, 180)


def restart_slurmd(job: str, slurm: dict[str, str]) -> None:
    """Kill and start the daemon of the node, which does not affect the job."""
    pid = Path(slurm["SLURM_CONF"]).parent / "slurmd.pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    subprocess.run(["slurmd"], env=slurm, check=True)


@pytest.mark.parametrize(
    "cut",
    [
        ["scancel", "--signal=USR1"],  # --signal=USR1@120 sends it before the time limit
        ["scontrol", "requeue"],  # preemption requeues too
        restart_slurmd,
    ],
    ids=["signal", "requeue", "slurmd"],
)
def test_an_interrupted_job_ends_like_an_uninterrupted_run(cut, slurm, whole, tmp_path):
    run = tmp_path / "outputs/cut"
    job = submit(slurm, tmp_path, str(SCRIPT), *RUN, *SLOW, "name=cut")
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


def test_a_run_longer_than_its_time_limit_resumes_after_a_requeue(slurm, whole, tmp_path):
    """Slurm's clock is coarse, so that the signal may come up to a minute early."""
    run = tmp_path / "outputs/cut"
    slow = [*SLOW, "logger.slow.seconds=6"]
    job = submit(slurm, tmp_path, "--time=1", "--signal=USR1@5", str(SCRIPT), *RUN, *slow, "name=cut")
    until(lambda: status(run) in ("stopped", "finished"), 180)
    assert status(run) == "stopped"
    hasten(job, run, slurm)
    # The remaining steps take half a minute; after a second signal, the job would wait in the queue for two.
    until(lambda: status(run) == "finished", 400)
    assert manifest(run, STEPS) == manifest(whole, STEPS)
    assert records(run) == records(whole)


def test_two_tasks_train_one_run_and_resume_it(slurm, tmp_path):
    """The tasks connect without configuration; a signal, which Slurm sends to both, stops them at the same step."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two cores, one for each task")
    two = ["--ntasks=2", str(SCRIPT), *RUN, "train.steps=600", "train.checkpoint_every=100", "train.devices=all"]
    two += ["train.log_every=50", *SLOW]
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


def test_a_sweep_of_slurm_jobs_resumes_a_preempted_job(slurm, whole, tmp_path):
    """submitit requeues a preempted job (SIGUSR2), which has saved a checkpoint by then."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'gan_cli[sweep]'")
    sweep = [
        "--multirun",
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
        *RUN,
        *SLOW,
        "name=sweep",
        "seed=0,1",
    ]
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
