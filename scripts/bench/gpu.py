"""Measures everything that has a figure on a GPU, in one command and within a budget of seconds.

This process computes nothing itself, so that it holds no device. Each measured program is a process of its own
(``gpu_ours.py`` with JAX, ``gpu_peers.py`` with PyTorch, and ``gan-train``), with a time limit. JAX and PyTorch
share no process that captures CUDA graphs, because the capture failed in a process with JAX. For each case, all
processes start, compile, warm up, and then wait for requests. The parent lets one process compute at a time, each
side for a moment, and repeats the round: A B A B. The processes of ``TOGETHER`` cases start at the same time,
because compiling takes longer than measuring.

The report (JSON and Markdown) is written again after each part, so that a killed benchmark loses only the part in
progress. The report states the parts that failed, each with a reason of one line, and the parts that did not fit
into the budget.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT))  # for a copy of the tree that is not installed

import gpu_report
from cases import CASES
from children import Failed, Process

ROLES = {"ours": "gpu_ours.py", "eager": "gpu_peers.py", "compiled": "gpu_peers.py", "graph": "gpu_peers.py"}
TOGETHER = 3  # number of cases whose processes compile at the same time
LEAST = 15.0  # a part is skipped if fewer seconds of the budget are left
ROUND = 0.25  # seconds of one measurement of one side


@dataclass
class Plan:
    """What is measured.

    Attributes:
        cases: names of the cases of ``cases.CASES``.
        repeats: number of rounds.
        budget: seconds of the whole benchmark.
        dry: whether a CPU stands in for the GPU, with tiny sizes. The figures then mean nothing.
        parts: the parts after the cases, in order.
        limit: seconds until a process is ready, or until its next row if it receives no requests.
        path: the PYTHONPATH of the measured processes.
    """

    cases: Sequence[str]
    repeats: int
    budget: float
    dry: bool
    parts: Sequence[str]
    limit: float
    path: str = ""
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (time.monotonic() - self.began)

    def allowed(self) -> float:
        """Seconds that a process may take from now on."""
        return max(min(self.limit, self.left()), 0)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a process that is measured."""
        own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1", "PYTHONPATH": self.path}
        if self.dry:
            own |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "GPU_BENCH_DRY": "1"}
            own["TORCH_COMPILE_DISABLE"] = "1"  # compiling C++ takes a minute
        return {**os.environ, **own, **more}


def main(plan: Plan, out: Path) -> None:
    """Measure everything that ``plan`` contains, and write ``out`` and the same path with the suffix ``.md``."""
    report = gpu_report.Report(out, {"host": platform.node(), "cpus": os.cpu_count(), "dry_run": plan.dry})
    with tempfile.TemporaryDirectory() as temporary, _importable(Path(temporary)) as path:
        plan.path, folder = path, Path(temporary)
        for start in range(0, len(plan.cases), TOGETHER):
            names = plan.cases[start : start + TOGETHER]
            if plan.left() < LEAST:
                for name in names:
                    report.skip(name, f"the budget of {plan.budget:.0f} s is spent")
                continue
            _cases(plan, names, folder, report)
        for part in plan.parts:
            if plan.left() < LEAST:
                report.skip(part, f"the budget of {plan.budget:.0f} s is spent")
                continue
            print(f"{part} ({plan.left():.0f} s left) ...", flush=True)
            began = time.monotonic()
            try:
                PARTS[part](plan, part, folder, report)
            except Failed as error:
                report.fail(part, str(error))
            report.note(part, seconds=round(time.monotonic() - began, 1))
    print(report.markdown())
    print(f"Written to {out} and {out.with_suffix('.md')}.")


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[str]:
    """A context manager that returns a PYTHONPATH with the package, which need not be installed.

    An installation makes the folder ``configs`` importable as ``gan_cli.configs``. Without one, links do.
    """
    before, place = os.environ.get("PYTHONPATH", ""), ROOT
    if importlib.util.find_spec("gan_cli.configs") is None:
        place = folder / "tree"
        (place / "gan_cli").mkdir(parents=True)
        for entry in (ROOT / "gan_cli").iterdir():
            (place / "gan_cli" / entry.name).symlink_to(entry)
        (place / "gan_cli" / "configs").symlink_to(ROOT / "configs")
    yield os.pathsep.join(filter(None, (str(place), before)))


# ------------------------------------------------------------------------------------------------------ cases


def _cases(plan: Plan, names: Sequence[str], folder: Path, report: gpu_report.Report) -> None:
    """Measure several cases, whose processes start together."""
    print(f"{', '.join(names)} ({plan.left():.0f} s left) ...", flush=True)
    started = {
        (name, role): Process([str(HERE / script), role, name], plan.environment(), folder / f"{name}-{role}.txt")
        for name in names
        for role, script in ROLES.items()
    }
    deadline = time.monotonic() + plan.allowed()
    try:
        ready: dict[str, dict[str, Process]] = {name: {} for name in names}
        for (name, role), process in started.items():
            try:
                sides = process.answer(deadline - time.monotonic())
            except Failed as error:
                report.fail(name, str(error), side=role)
                continue
            report.device(role, sides["device"])
            for side, reason in sides["sides"].items():
                if reason is None:
                    ready[name][side] = process
                else:
                    report.fail(name, reason, side=side)
        for name in names:
            _measure(plan, name, ready[name], report)
    finally:
        for process in started.values():
            process.close()


def _measure(plan: Plan, name: str, ready: dict[str, Process], report: gpu_report.Report) -> None:
    """Measure the sides of a case in turn, while all other processes wait."""
    rates: dict[str, list[float]] = {side: [] for side in ready}
    peaks: dict[str, float | None] = {}
    seconds = 0.02 if plan.dry else ROUND
    for _ in range(plan.repeats):
        for side in list(rates):
            try:
                answer = ready[side].ask({"side": side, "seconds": seconds}, plan.limit)
            except Failed as error:
                report.fail(name, str(error), side=side)
                del rates[side]
                continue
            if "failed" in answer:
                report.fail(name, answer["failed"], side=side)
                del rates[side]
                continue
            rates[side].append(answer["rate"])
            peaks[side] = answer["peak_mebibytes"]
    row: dict[str, Any] = {"peak_mebibytes": peaks}
    row["steps_per_second"] = {side: round(statistics.median(found), 3) for side, found in rates.items() if found}
    ratios = {}
    for side, found in rates.items():
        own = rates.get(f"ours_{side.rpartition('_')[2]}", [])
        if found and own and not side.startswith("ours"):
            ratios[side] = round(statistics.median(a / b for a, b in zip(own, found, strict=True)), 3)
    report.case(name, row | {"ratio": ratios, "repeats": plan.repeats})


# ------------------------------------------------------------------------------------------------------ parts


def _in_process(plan: Plan, part: str, folder: Path, report: gpu_report.Report) -> None:
    """A part in one process of JAX, which answers with a row after each measurement, and at last with ``end``."""
    process = Process([str(HERE / "gpu_ours.py"), part], plan.environment(), folder / f"{part}.txt")
    try:
        while not (row := process.answer(plan.allowed())).get("end"):
            report.row(part, row)
    finally:
        process.close()


def _features(plan: Plan, part: str, folder: Path, report: gpu_report.Report) -> None:
    """The Inception features, in turn with the network of torchvision, which has the same convolutions."""
    scripts = {"ours": "gpu_ours.py", "torchvision": "gpu_peers.py"}
    started = {
        side: Process([str(HERE / script), "features"], plan.environment(), folder / f"features-{side}.txt")
        for side, script in scripts.items()
    }
    deadline = time.monotonic() + plan.allowed()
    rates: dict[str, list[float]] = {}
    try:
        for side, process in started.items():
            try:
                process.answer(deadline - time.monotonic())
                rates[side] = []
            except Failed as error:
                report.fail(part, str(error), side=side)
        for _ in range(plan.repeats):
            for side in list(rates):
                try:
                    answer = started[side].ask({}, deadline - time.monotonic())
                except Failed as error:
                    report.fail(part, str(error), side=side)
                    del rates[side]
                    continue
                rates[side].append(answer["images_per_second"])
                peak = answer["peak_mebibytes"]
                row = {"side": side, "images_per_second": round(statistics.median(rates[side]), 1)}
                report.row(part, row | {"peak_mebibytes": peak}, key=side)
    finally:
        for process in started.values():
            process.close()


def _train(plan: Plan, folder: Path, name: str, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``gan-train``, which logs each call of the compiled program."""
    quiet = ["logger=none", "train.sample_every=0"]
    with (folder / f"{name}.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gan_cli.cli.train", f"name={name}", *quiet, *overrides],
            cwd=folder, env=plan.environment(**environment), stdout=subprocess.DEVNULL, stderr=log, text=True,
        )  # fmt: skip


def _finish(plan: Plan, folder: Path, name: str, process: subprocess.Popen[str]) -> None:
    """Wait for ``gan-train``.

    Raises:
        Failed: it has failed, or exceeds its time.
    """
    seconds = plan.allowed()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"gan-train has not ended within {seconds:.0f} s") from None
    if status:
        lines = [line for line in (folder / f"{name}.txt").read_text(errors="replace").splitlines() if line.strip()]
        raise Failed(lines[-1][:200] if lines else f"gan-train ended with status {status}")


def _short(plan: Plan, model: str, steps: int, per_call: int) -> list[str]:
    every = [f"train.{what}={per_call}" for what in ("steps_per_call", "log_every", "checkpoint_every")]
    batch = ["train.batch_size=8"] if plan.dry else []
    return [f"model={model}", f"train.steps={steps}", *every, *batch]


def _first_step(plan: Plan, part: str, folder: Path, report: gpu_report.Report) -> None:
    """Seconds from the start of ``gan-train`` to the end of its first call, with a cold and a warm cache."""
    for model, per_call in (("mlp", 100), ("dcgan", 20)) if not plan.dry else (("mlp", 2),):
        for cache in ("cold", "warm"):
            name, began = f"first-{model}-{cache}", time.time()
            process = _train(
                plan, folder, name, *_short(plan, model, 2 * per_call, per_call),
                JAX_COMPILATION_CACHE_DIR=str(folder / f"cache-{model}"),
            )  # fmt: skip
            _finish(plan, folder, name, process)
            first = json.loads((folder / "outputs" / name / "metrics.jsonl").read_text().splitlines()[0])
            report.row(part, {"model": model, "cache": cache, "seconds": round(first["time"] - began, 2)})


def _deterministic(plan: Plan, part: str, folder: Path, report: gpu_report.Report) -> None:
    """Whether two runs with deterministic operations end with equal arrays, and a run that stops halfway too."""
    flags = "" if plan.dry else f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    # The first run fills the cache, so that all processes execute the same program.
    fixed = {"XLA_FLAGS": flags.strip(), "JAX_COMPILATION_CACHE_DIR": str(folder / "cache-deterministic")}
    calls = {"mlp": 2} if plan.dry else {"mlp": 100, "dcgan": 20}
    for stage in ({"whole": 2}, {"again": 2, "stopped": 1}, {"resumed": 2}):
        started = {}
        for model, per_call in calls.items():
            for run, count in stage.items():
                name = f"{model}-{'stopped' if run == 'resumed' else run}"
                more = ["resume=auto"] if run == "resumed" else []
                started[name] = _train(
                    plan, folder, name, *_short(plan, model, count * per_call, per_call), *more, **fixed
                )
        try:
            for name, process in started.items():
                _finish(plan, folder, name, process)
        finally:
            for process in started.values():
                process.kill()
                process.wait()
    for model, per_call in calls.items():
        steps = 2 * per_call
        whole, *others = (
            _arrays(folder / "outputs" / f"{model}-{run}", steps) for run in ("whole", "again", "stopped")
        )
        equal = dict(zip(("runs_equal", "resumed_equal"), (whole == other for other in others), strict=True))
        report.row(part, {"model": model, "steps": steps, **equal})


def _arrays(run: Path, step: int) -> Any:
    """The hash of each array of a checkpoint."""
    return json.loads((run / "checkpoints" / str(step) / "manifest" / "metadata").read_text())["arrays"]


PARTS = {
    "time to first step": _first_step,
    "bit-identical": _deterministic,
    "ensembles": _in_process,
    "r3gan": _in_process,
    "features": _features,
}


def command(arguments: Sequence[str]) -> int:
    """Run ``python scripts/bench --gpu`` with the arguments of the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python scripts/bench --gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", action="store_true", required=True, help="this mode")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="a CPU stands in for the GPU, with tiny sizes; the figures mean nothing",
    )
    parser.add_argument(
        "--budget", type=float, default=480, help="seconds after which nothing further is started (default: 480)"
    )
    parser.add_argument(
        "--cases", nargs="*", choices=list(CASES), help="the cases to measure (default: all; two in a dry run)"
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=list(PARTS),
        default=list(PARTS),
        help="the other parts to measure (default: all)",
    )
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds after which a process is ended (default: 120)"
    )
    parser.add_argument("--repeats", type=int, help="the number of rounds (default: 3; one in a dry run)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("outputs/bench_gpu.json"),
        help="the file for the results (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if not options.dry_run and shutil.which("nvidia-smi") is None:
        print(
            "--gpu: there is no NVIDIA driver (nvidia-smi). Add --dry-run to try the benchmark on a CPU.",
            file=sys.stderr,
        )
        return 2
    cases = (["mlp-64", "dcgan-28"] if options.dry_run else list(CASES)) if options.cases is None else options.cases
    repeats = options.repeats or (1 if options.dry_run else 3)
    plan = Plan(cases, repeats, options.budget, options.dry_run, options.parts, options.limit)
    main(plan, options.json)
    return 0
