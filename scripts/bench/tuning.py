"""Measures the speed of each variant of the compiler's options, relative to the default options, in turn.

The variants are those among which ``train.tune`` chooses (``gan_cli.engine.tuning``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, colour_images
from rich.console import Console
from rich.table import Table

from gan_cli.engine import tuning


def measure(names: list[str]) -> list[dict[str, Any]]:
    """Measure the cases. Each row has the quartiles (``low``, ``median``, ``high``) of the speed of a variant."""
    rows = []
    variants = tuning.available()
    with colour_images() as folder:
        for name in names:
            case = CASES[name]
            length = case.steps // 4
            every = [f"train.{key}={length}" for key in ("steps_per_call", "log_every")]
            never = [f"train.{key}=0" for key in ("sample_every", "checkpoint_every", "eval_every")]
            steps = case.experiment(Path(folder), *every, *never).compile()
            for variant, speeds in tuning.speeds(steps, steps.init(), variants).items():
                low, median, high = np.quantile(speeds, (0.25, 0.5, 0.75)).round(3).tolist()
                rows.append({"case": name, "variant": variant, "low": low, "median": median, "high": high})
            print(f"{name} measured", flush=True)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table()
    for column in ("case", "variant", "speed", "quartiles"):
        table.add_column(column, justify="left" if column in ("case", "variant") else "right")
    for row in rows:
        table.add_row(
            row["case"], row["variant"], f"{row['median']:.2f}x", f"{row['low']:.2f} to {row['high']:.2f}"
        )
    Console(width=100).print(table)
