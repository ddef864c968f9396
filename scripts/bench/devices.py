"""Measures the time of a step whose batch is split over devices, and the data that the devices exchange.

The batch size does not depend on the number of devices. If one CPU simulates the devices, the total work is
constant, so that differences in time are the cost of splitting the batch. Each number of devices is measured in a
new process. The last row of each case is measured in two processes with one device each.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from gan_cli.cli.shell import one_of_several
from gan_cli.config.build import experiment
from gan_cli.engine import processes

CASES = {
    "mlp-64": (["model=mlp"], 100),
    "mlp-512": (["model=mlp", "train.batch_size=512"], 40),
    "dcgan-64": (["model=dcgan"], 4),
}
COUNTS = (1, 2, 4, 8)
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}


def measure(repeats: int) -> list[dict[str, Any]]:
    """Measure each case on each number of devices ``repeats`` times, and return table rows with the medians."""
    rows = []
    for name, (overrides, length) in CASES.items():
        ways = [(count, 1) for count in COUNTS] + [(2, 2)]
        found: dict[tuple[int, int], list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way in ways:
                outcome = _in_processes(overrides, length, *way)
                if outcome is not None:
                    found[way].append(outcome)
        for (count, number), outcomes in found.items():
            if outcomes:
                row = {"case": name, "devices": count, "processes": number, **outcomes[0]}
                rows.append(row | {"milliseconds": statistics.median(o["milliseconds"] for o in outcomes)})
    return rows


def _in_processes(overrides: list[str], length: int, devices: int, number: int) -> dict[str, Any] | None:
    """Measure a case once in new processes, and return the result, or None if a process fails.

    Args:
        overrides: the overrides of ``gan-train``.
        length: the number of steps in one call of the compiled program.
        devices: the number of devices, which the processes share evenly.
        number: the number of processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environments = [os.environ | {"JAX_NUM_CPU_DEVICES": str(devices // number)} for _ in range(number)]
    if number > 1:  # each process has a separate accelerator, or a part of the CPU
        together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(number)}
        for i, environment in enumerate(environments):
            environment |= together | {"JAX_PROCESS_ID": str(i), "CUDA_VISIBLE_DEVICES": str(i)}
    command = [sys.executable, __file__, str(devices), str(length), *overrides]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for environment in environments
    ]
    outputs = [process.communicate()[0] for process in started]
    return json.loads(outputs[0].splitlines()[-1]) if not any(process.returncode for process in started) else None


def _child(devices: int, length: int, overrides: list[str]) -> None:
    """Measure a case in this process, and print the result as one line of JSON."""
    if one_of_several():
        processes.join()
    cadence = [
        f"train.{what}={length}" for what in ("steps_per_call", "log_every", "sample_every", "checkpoint_every")
    ]
    made = experiment([*overrides, *cadence, f"train.devices={devices}", "train.steps=1000000", "logger=none"])
    program = made.compile()
    state = program.init()
    text = program.lower(state, 1).compile().as_text()
    times = []
    for call in range(6):
        began = time.perf_counter()
        state, _, _ = jax.block_until_ready(program.run(state, call * length))
        times.append((time.perf_counter() - began) / length)
    sums = re.findall(r"= (.*) all-reduce(?:-start)?\(", text)  # an all-reduce sums one array or several
    sent = sum(_size(kind, shape) for result in sums for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", result))
    print(
        json.dumps({"milliseconds": 1000 * min(times[1:]), "sums": len(sums), "kilobytes": sent / 1000}), flush=True
    )
    processes.barrier()


def _size(kind: str, shape: str) -> int:
    """The size in bytes of an array whose type and shape are given as in the text of a compiled program."""
    return _BYTES[kind] * math.prod(int(side) for side in shape.split(",") if side)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("case", "devices", "processes", "ms/step", "relative", "sums/step", "kB/step")
    for row in rows:
        one = next(r["milliseconds"] for r in rows if r["case"] == row["case"])
        ms = row["milliseconds"]
        figures = (f"{ms:.3g}", f"{ms / one:.2f}x", str(row["sums"]), f"{row['kilobytes']:,.0f}")
        table.add_row(row["case"], str(row["devices"]), str(row["processes"]), *figures)
    Console(width=100).print(table)


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
