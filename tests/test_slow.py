"""Installation of a wheel, memory, training to convergence, an interrupted sweep: make test-slow."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, command, environment
from digit_classifier import class_shares

import gan_cli

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
OPTIMISED = {"XLA_FLAGS": ""}  # long runs, for which optimisation pays off


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(**OPTIMISED), **more)


def test_wheel_in_an_empty_environment(tmp_path):
    """A wheel contains its configurations and runs outside the repository."""
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv*", "outputs", "multirun", "*.egg-info", "build")
    )
    pip = [sys.executable, "-m", "pip"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)], check=True, cwd=tmp_path
    )
    shutil.rmtree(source)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    binaries = tmp_path / "env" / "bin"
    subprocess.run([str(binaries / "pip"), "install", "--quiet", str(wheel)], check=True)
    clean = {k: v for k, v in environment(**OPTIMISED).items() if k != "PYTHONPATH"}
    place = tmp_path / "elsewhere"
    place.mkdir()
    done = subprocess.run(
        [str(binaries / "gan-train"), *TINY, "name=a"], cwd=place, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "outputs/a/run.json").read_text())["git"] is None
    assert (place / "outputs/a/samples/8.png").exists()
    subprocess.run([str(binaries / "gan-report"), "outputs/a"], cwd=place, env=clean, check=True)
    assert (place / "outputs/a/report.html").exists()


def test_memory_stays_flat():
    """Resident memory grows by at most 5 % between steps 5,000 and 50,000."""
    program = (
        "import os, gan_cli\n"
        "from gan_cli.storage import metrics_log\n"
        "def resident():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "write, seen = metrics_log.MetricsLog.write, {}\n"
        "def watching(self, step, *rest):\n"
        "    seen[step] = resident()\n"
        "    return write(self, step, *rest)\n"
        "metrics_log.MetricsLog.write = watching\n"
        f"gan_cli.train({[*TINY, 'train.steps=50000', 'train.steps_per_call=50', 'train.log_every=50']!r} + "
        "['train.sample_every=2500', 'train.checkpoint_every=1000', 'name=a'], quiet=True)\n"
        "print(seen[5000], seen[50000])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(**OPTIMISED)
    )
    assert done.returncode == 0, done.stderr
    early, late = map(int, done.stdout.split())
    assert late <= 1.05 * early, (early, late)


def trained(*overrides: str) -> Path:
    """Train in a subprocess and return the run directory."""
    done = call(*overrides, "train.log_every=5000")
    assert done.returncode == 0, done.stderr
    match = re.search(r"^log +(.*)/metrics.jsonl$", done.stdout, re.MULTILINE)
    assert match, done.stdout
    return Path(match.group(1))


# The rarest class has a share of at least 3 % with Adam. In three runs with plain SGD it had 2.8 to 5.6 %.
@pytest.mark.parametrize(("optim", "rarest"), [("adam", 0.03), ("sgd", 0.02)])
def test_default_run_draws_all_ten_digits(optim, rarest, monkeypatch):
    """An independent classifier finds all classes in 1,000 samples, with a mean confidence of at least 0.8."""
    monkeypatch.setenv("XLA_FLAGS", "")
    directory = trained(f"optim={optim}", "name=digits")
    samples = gan_cli.train([f"resume={directory}"], quiet=True).sample(1000, seed=5)
    shares, confidence = class_shares(samples)
    assert shares.min() >= rarest, shares
    assert confidence >= 0.8


@pytest.mark.parametrize(("experiment", "modes", "quality"), [("ring", 8, 0.95), ("grid", 25, 0.85)])
def test_all_modes_are_covered(experiment, modes, quality):
    """Each mode has at least a quarter of its fair share of samples, and most samples are near a mode."""
    directory = trained(f"experiment={experiment}", "seed=1", "name=a")
    facts = json.loads((directory / "run.json").read_text())
    assert facts["final"]["modes"] == modes and facts["final"]["quality"] >= quality
    points = np.load(directory / f"samples/{facts['step']}.npz")["samples"]
    assert points.shape == (2500, 2) and (directory / f"samples/{facts['step']}.png").stat().st_size > 1000


def test_interrupted_sweep_saves_its_job():
    """After SIGINT to the sweep, the running job saves and ends, no other job starts, and the status is 130."""
    arguments = ["--multirun", *TINY, "train.steps=400000", "seed=1,2", "name=sweep"]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, env=environment())
    began = time.monotonic()
    while not list(Path("multirun/sweep/0/checkpoints").glob("[0-9]*")) and time.monotonic() - began < 60:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in out and not Path("multirun/sweep/1").exists()
    assert json.loads(Path("multirun/sweep/0/run.json").read_text())["status"] == "stopped"
