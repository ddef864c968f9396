"""Measures costs other than a step: start-up, memory, logging, drawing, saving, streaming and ensembles.

For each measurement, the module runs a command in a new process, and reads the times of ``gan-train`` from
``run.json``. To compare two setups, the module runs them in turn.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from gan_cli.data.mnist5k import mnist5k

QUIET = ["train.log_every=100000000", "train.sample_every=0", "train.checkpoint_every=0", "logger=none"]


@dataclass(frozen=True)
class Outcome:
    """The measurements of one process.

    Attributes:
        first_call: seconds from the start of the process to the end of its first call of the compiled program.
        whole: seconds from the start to the end of the process.
        rate: steps per second.
        peak_mebibytes: the peak of the resident memory, in MiB.
    """

    first_call: float
    whole: float
    rate: float
    peak_mebibytes: float


def run(folder: Path, *overrides: str, cache: Path | None = None) -> Outcome:
    """Train in a new process in ``folder``, and measure it.

    Args:
        folder: the working directory of the process.
        overrides: the overrides of ``gan-train``.
        cache: the directory of the compilation cache. With None, the process uses its usual cache.

    Raises:
        SystemExit: the process failed.
    """
    name = f"bench-{time.monotonic_ns()}"
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {})
    began = time.time()
    command = [sys.executable, "-m", "gan_cli.cli.train", f"name={name}", *overrides]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    memory = 0.0
    while process.poll() is None:
        memory = max(memory, _peak_mebibytes(process.pid))
        time.sleep(0.05)
    ended = time.time()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with status {process.returncode}")
    facts = json.loads((folder / "outputs" / name / "run.json").read_text())
    # `seconds` and `seconds_to_first_call` exclude the time before the run's directory exists.
    before = ended - began - facts["seconds"]
    return Outcome(before + facts["seconds_to_first_call"], ended - began, facts["steps_per_second"], memory)


def _peak_mebibytes(pid: int) -> float:
    """The peak of the resident memory of a running process so far, in MiB.

    ``wait4`` is not suitable, because its value includes the memory of the parent process before the exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def in_turn(folder: Path, first: list[str], second: list[str], repeats: int) -> float:
    """The ratio of the speed with the overrides ``second`` to the speed with ``first`` (a median)."""
    return statistics.median(run(folder, *second).rate / run(folder, *first).rate for _ in range(repeats))


def _later(folder: Path, program: str, *arguments: str, repeats: int = 3) -> float:
    """Seconds of a command on a run, with warm caches (a median)."""
    command = [sys.executable, "-m", f"gan_cli.cli.{program}", *arguments]
    seconds = []
    for _ in range(1 + repeats):  # the first fills the caches
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def measure() -> list[dict[str, Any]]:
    """Make all measurements, print a table of them, and return the rows of the table."""
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float, unit: str) -> None:
        rows.append({"what": what, "value": round(value, 3), "unit": unit})
        print(f"{what}: {value:.3g} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _digits(folder / "digits")
        for model, steps in (("mlp", 2000), ("dcgan", 40)):
            short = [
                f"model={model}",
                f"train.steps={steps}",
                f"train.steps_per_call={min(steps // 2, 100)}",
                *QUIET,
            ]
            cold = run(folder, *short, cache=folder / f"cache-{model}")
            warm = run(folder, *short, cache=folder / f"cache-{model}")
            row(f"{model}: from the shell to the end of the first call, cold", cold.first_call, "s")
            row(f"{model}: the same with a warm compilation cache", warm.first_call, "s")
            row(f"{model}: peak memory of the process", warm.peak_mebibytes, "MiB")
        run(folder, "train.steps=200", *QUIET)
        (trained,) = (str(path.parents[1]) for path in (folder / "outputs").glob("*/checkpoints/200"))
        row("mlp: gan-sample RUN --out samples.png", _later(folder, "sample", trained, "--out", "samples.png"), "s")
        evaluation = _later(folder, "eval", trained, "--metrics", "fid", "--num", "1000")
        row("mlp: gan-eval RUN --metrics fid --num 1000", evaluation, "s")
        steps = ["train.steps=20000"]
        cost = in_turn(folder, [*steps], [*steps, *QUIET], 3)
        row("mlp: speed without logging, drawing and saving, over the speed with them", cost, "x")
        few = ["model=dcgan", "train.steps=60", "train.steps_per_call=10", *QUIET]
        data = [
            "dataset=folder",
            f"dataset.path={folder / 'digits'}",
            "dataset.channels=1",
            "dataset.resolution=28",
        ]
        ratio = in_turn(folder, [*few, *data, "dataset.stream=false"], [*few, *data, "dataset.stream=true"], 5)
        row("dcgan: streamed over resident data, speed", ratio, "x")
        base = ["train.steps=600", *QUIET]
        one = run(folder, *base).rate
        row("mlp: an ensemble of 8, cost in single runs", one / run(folder, *base, "train.ensemble=8").rate, "x")
        for option, values in (
            ("train.batch_size", (16, 64, 256, 1024)),
            ("model.generator.width model.discriminator.width", (64, 128, 256, 512)),
            ("dataset.size", (1000, 10_000, 100_000, 1_000_000)),
        ):
            more = ["dataset=ring"] if option == "dataset.size" else []
            for value in values:
                rate = run(folder, *base, *more, *(f"{key}={value}" for key in option.split())).rate
                row(f"mlp: a step at {option.split()[-1]}={value}", 1000 / rate, "ms")
    table = Table("what", "value", "unit")
    for line in rows:
        table.add_row(line["what"], f"{line['value']:.4g}", line["unit"])
    Console(width=110).print(table)
    return rows


def _digits(folder: Path) -> None:
    """Write the digits of dataset=mnist5k as PNG files."""
    folder.mkdir()
    for i, image in enumerate(mnist5k().arrays["x"]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:04}.png")
