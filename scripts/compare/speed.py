"""Measures the speed of many configurations with two commits, in turn: one process for each commit, and one call of
the compiled program of each at a time, so that a change in the load of the machine affects both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import children

_LIMIT = 600.0  # seconds after which a process that has not answered is ended
_ROUNDS = 15
_NARROW = "model.generator.width=16 model.discriminator.width=16"
# Steps of a call, which takes about a tenth of a second on two cores, and options. Every optimiser, loss, penalty,
# augmentation and strategy, and most games, models and experiments that need no files.
CONFIGURATIONS: list[tuple[int, str]] = [
    *((100, option) for option in (
        "model=mlp", "model.discriminator.dropout=0", "optim.b1=0", "optim.b1=0.9",
        "model.conditional=projection", "model.conditional=acgan", "model.generator.norm=batch",
        "model.discriminator.norm=layer", "model.discriminator.norm=spectral",
    )),
    *((100, f"loss={name}") for name in (
        "minimax", "lsgan", "wgan", "hinge", "fgan", "relativistic", "relativistic_average",
    )),
    *((100, f"optim={name}") for name in (
        "adabelief", "adamw", "amsgrad", "lion", "momentum", "optimistic_adam", "rmsprop", "schedule_free", "sgd",
    )),
    (50, "optim=muon"),
    *((50, f"penalty=[{name}]") for name in (
        "consistency", "dragan", "one_sided_gp", "orthogonal", "r1", "r2", "wgan_gp",
    )),
    *((50, f"augment=[{name}]") for name in ("adaptive", "diffaugment", "noise", "packing")),
    *((50, f"strategy={name}") for name in (
        "consensus", "extragradient", "lookahead", "optimistic", "simultaneous", "symplectic",
    )),
    (20, "strategy=unrolled"),
    (20, "strategy=competitive optim=sgd optim.clip_norm=null"),
    (50, "estimator=microbatched estimator.size=16"),
    *((50, f"train.batch_size=256{more}") for more in ("", " model.discriminator.dropout=0")),
    *((3, f"model=dcgan{more}") for more in ("", " model.discriminator.dropout=0.3")),
    (2, f"model=resnet {_NARROW}"),
    (2, f"experiment=r3gan dataset=mnist5k train.batch_size=16 {_NARROW}"),
    (50, "model=pacgan"),
    *((50, f"experiment={name}") for name in ("ring", "grid", "credit")),
    *((5000, f"experiment={name}") for name in ("quadratic", "bilinear", "dirac_gan")),
    (50, "game=vae"),
    (50, "game=vae_gan model.discriminator.dropout=0"),
    *((20, f"experiment={name}") for name in ("ctgan", "sines", "oracle")),
    (5, "experiment=stocks model=recurrent"),
    (2, "experiment=shakespeare"),
    (10, f"experiment=edges {_NARROW}"),
]  # fmt: skip


def measure(trees: Sequence[Path], place: Path, chosen: str) -> None:
    """Print a line for each configuration: the speed of the new commit relative to the old one.

    Args:
        trees: the checkouts of the old and of the new commit.
        place: the folder for the messages of the processes.
        chosen: part of the options of the configurations to measure.
    """
    print(f"{'speed':>6} {'quartiles':>16} {'ms per step':>12}  options", flush=True)
    script = str(Path(__file__).with_name("timed.py"))
    sides = [
        children.Process(["-W", "ignore", script], os.environ | {"PYTHONPATH": str(tree)}, place / f"{name}.log")
        for name, tree in zip(("old", "new"), trees, strict=True)
    ]
    try:
        for steps, options in CONFIGURATIONS:
            if chosen in options:
                print(f"{_row(sides, steps, options)}  {options}", flush=True)
    finally:
        for side in sides:
            side.close()


def _row(sides: list[children.Process], steps: int, options: str) -> str:
    request = {"steps": steps, "overrides": options.split()}
    reasons = [side.ask(request, _LIMIT).get("failed") for side in sides]
    if any(reasons):
        return f"failed (old: {reasons[0]}, new: {reasons[1]})"
    seconds = np.zeros((_ROUNDS, 2))
    for i in range(_ROUNDS):
        for j in (0, 1) if i % 2 else (1, 0):
            seconds[i, j] = sides[j].ask({}, _LIMIT)["seconds"]
    low, median, high = np.quantile(seconds[:, 0] / seconds[:, 1], (0.25, 0.5, 0.75))
    return f"{median:6.3f} {low:7.3f} to {high:.3f} {1000 * np.median(seconds[:, 1]) / steps:12.4g}"
