"""Compare the steps per second of gan_cli and PyTorch at equal work.

    python scripts/bench [--cases mlp-64 dcgan-28 ...] [--repeats 7] [--around] [--devices] [--features]
                         [--private] [--json outputs/bench.json]
    python scripts/bench --gpu [--dry-run] [--budget 480] [--cases ...] [--parts ...] [--repeats 3]

For each case, the script first checks that the losses of gan_cli and PyTorch agree over 20 steps from the same
weights and batches. It then times the following in turn:

- the compiled step of gan_cli (`ours`);
- the same networks, batch size, optimiser and work in PyTorch: with a DataLoader (`loader`), with the data in one
  tensor (`resident`), with torch.compile (`compiled`), and on a GPU as a CUDA graph and in bfloat16;
- a large matrix product, whose speed counts as the peak of the machine.

Speeds in the table are medians over the repeats. Ratios are medians of the ratios of successive measurements. The
FLOPs count only the matrix products and convolutions that the step executes, with two FLOPs for each multiply-add
(flops.py). `alone` is the time of these operations, each timed in a loop, as a fraction of the step's time. A step
cannot be faster than its matrix products and convolutions. A second table has the milliseconds of the step, of
these operations alone, and of the fastest form of PyTorch.

`--around` instead measures start-up, memory, logging and other costs outside the step (around.py), `--devices` the
time of a step whose batch is split over devices (devices.py), `--features` the speed of the Inception features in
gan_cli and in torch-fidelity (features.py), and `--private` a private update against a plain one (private.py).
`--tuning` measures the options of the compiler that `train.tune` chooses from (tuning.py).
`--reading` measures reading from a folder of JPEG files (reading.py). `--gpu` measures everything that has a figure
on a GPU, each side in a process of its own (gpu.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

if "--gpu" in sys.argv[1:]:  # before JAX and PyTorch are imported, because this process must hold no device
    import gpu

    sys.exit(gpu.command(sys.argv[1:]))

import jax
import numpy as np
import torch
from cases import CASES, Case, colour_images
from flops import flops, operations, peak, seconds_alone
from peers import DEVICE, Peer, copy_weights, full_float32, graph, loader, resident, tensor
from rich.console import Console
from rich.table import Table

from gan_cli.config.build import Experiment
from gan_cli.engine import randomness, steps
from gan_cli.engine.state import init_state

CHECKED_STEPS = 20
_GPU_STEPS = (
    200  # the smallest number of steps in a measurement on a GPU, because a few steps are too short to time
)


def ours(experiment: Experiment) -> Callable[[int], None]:
    """A function that makes a given number of steps with the compiled program of gan_cli."""
    e = experiment
    assert e.dataset is not None
    program = steps.compile_chunk(e.setup, e.dataset.feed, e.train.batch_size, e.train.ema)
    state = jax.jit(lambda: init_state(e.setup))()
    arrays = jax.device_put(e.dataset.examples)

    def run(steps: int) -> None:
        nonlocal state
        state, _, _ = program(state, arrays, steps)
        jax.block_until_ready(state)

    return run


def by_name(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def check(case: Case, e: Experiment) -> float:
    """The largest relative difference between the losses of gan_cli and PyTorch, from the same weights.

    The compiled program of gan_cli returns its losses. The peer must receive the same batches and random draws,
    which the function records from single steps of gan_cli. The caller sets full float32 for both, although the
    measurements on a GPU use TF32.

    Args:
        case: the case to check.
        e: the experiment of the case, with a tenth of the usual learning rate. The first updates of Adam depend on
            the signs of the gradients. Where batch normalisation makes gradients nearly zero, rounding errors
            therefore grow fast. At the full learning rate, the losses of the ResNet differ after ten steps.

    Raises:
        SystemExit: the losses differ by more than 1e-3 in the first three steps, or by more than 5e-2 in any step.
            The work of gan_cli and PyTorch is then not equal, and the ratio of their speeds has no meaning.
    """
    assert e.dataset is not None
    data, batch = e.dataset, e.train.batch_size
    state = jax.jit(lambda: init_state(e.setup))()
    peer = _peer(case, e)
    for player, module in (("generator", peer.generator), ("discriminator", peer.discriminator)):
        copy_weights(module, by_name(state.params[player]) | by_name(state.net_state[player]["network"]))
    peer.average = [p.detach().clone() for p in peer.parameters]

    order = np.asarray(randomness.order(data.feed, e.seed, 0, CHECKED_STEPS, 1, batch).indices[""])[:, 0]
    theirs = []
    for step in range(CHECKED_STEPS):
        z, mix = _draws(e, batch, step)
        losses = peer.step(
            tensor(data.take(order[step])["x"]).to(DEVICE),
            torch.from_numpy(z).to(DEVICE),
            None if mix is None else torch.from_numpy(mix).to(DEVICE),
        )
        theirs.append([float(loss) for loss in losses])
    program = steps.compile_chunk(e.setup, data.feed, batch, e.train.ema)
    _, metrics, _ = program(state, jax.device_put(data.examples), CHECKED_STEPS)
    own = np.stack([metrics["discriminator/loss"], metrics["generator/loss"]], axis=1)
    differences = (np.abs(own - theirs) / np.maximum(np.abs(theirs), 0.1)).max(1)
    difference = float(differences.max())
    if not (differences[:3].max() < 1e-3 and difference < 5e-2):
        sys.exit(f"the losses of gan_cli and PyTorch differ by {difference:.2g}:\n{np.c_[own, theirs]}")
    return difference


def _draws(e: Experiment, batch: int, step: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The random draws of a step of gan_cli.

    Returns:
        The latents, and the mixing weights of the WGAN-GP penalty, or None without this penalty.
    """
    drawn: dict[str, np.ndarray] = {}

    def recording(name: str) -> Any:
        draw = getattr(jax.random, name)

        def record(*arguments: Any, **options: Any) -> Any:
            drawn[name] = np.array(value := draw(*arguments, **options))
            return value

        return mock.patch.object(jax.random, name, record)

    state = init_state(e.setup)._replace(step=jax.numpy.int32(step))
    examples = jax.numpy.zeros((batch, *e.game.spec["x"].shape))  # type: ignore[attr-defined]
    with recording("normal"), recording("uniform"):
        e.setup.step(state, [{"x": examples}], randomness.step_key(e.seed, state.step))
    return drawn["normal"], drawn.get("uniform")


def _peer(case: Case, e: Experiment, **options: Any) -> Peer:
    loss = e.config["loss"]["_target_"].rpartition(".")[2]
    spec = e.game.spec["x"].shape  # type: ignore[attr-defined]
    return Peer(case.network, spec, loss, case.penalty, e.config["optim"]["lr"], **options)


def sides(case: Case, e: Experiment) -> dict[str, Callable[[int], None]]:
    """A mapping from names to the functions to time. Each function takes the number of steps to make."""
    assert e.dataset is not None
    batch = e.train.batch_size
    data = tensor(e.dataset.take(np.arange(e.dataset.size))["x"])

    found = {
        "ours": ours(e),
        "eager_loader": loader(_peer(case, e), data, batch),
        "eager_resident": resident(_peer(case, e), data, batch),
    }
    if case.penalty == "none":  # torch.compile does not support second derivatives
        found["compiled"] = resident(_peer(case, e).compile(), data, batch)
    if DEVICE.type == "cuda":
        found["cuda_graph"] = graph(_peer(case, e), data, batch)
        found["cuda_graph_bfloat16"] = graph(_peer(case, e, bfloat16=True), data, batch)
        folder = Path(e.config["dataset"].get("path", "."))
        found["ours_bfloat16"] = ours(case.experiment(folder, "train.precision=bfloat16"))
    return found


def measure(name: str, case: Case, folder: Path, repeats: int, top: Callable[[], float]) -> dict[str, Any]:
    """Check and time one case, and return a row of the table.

    Args:
        name: the name of the case.
        case: the case.
        folder: the folder with the colour images.
        repeats: the number of measurements of each function.
        top: a function that measures the peak FLOP/s of the machine.
    """
    e, length = case.experiment(folder), max(case.steps, _GPU_STEPS if DEVICE.type == "cuda" else 0)
    slow = case.experiment(folder, f"optim.lr={e.config['optim']['lr'] / 10}")
    with full_float32(), jax.default_matmul_precision("highest"):
        difference = check(case, slow)
    running = sides(case, e)
    for side, run in list(running.items()):
        try:
            run(length)  # compiles and warms up
        except Exception as error:
            if side in ("ours", "eager_loader", "eager_resident"):
                raise
            print(f"{name}: {side} does not run on this machine: {str(error).strip().splitlines()[0][:100]}")
            del running[side]
    rates: dict[str, list[float]] = {side: [] for side in running}
    peaks = []
    for _ in range(repeats):
        peaks.append(top())
        for side, run in running.items():
            began = time.perf_counter()
            run(length)
            rates[side].append(length / (time.perf_counter() - began))
    assert e.dataset is not None
    program = steps.compile_chunk(e.setup, e.dataset.feed, e.train.batch_size, e.train.ema)
    found = operations(lambda s, a: program(s, a, 1), init_state(e.setup), e.dataset.examples)
    median = {side: statistics.median(values) for side, values in rates.items()}
    work = sum(count * flops(operation) for operation, count in found.items())
    fractions = [work * rate / peak for rate, peak in zip(rates["ours"], peaks, strict=True)]

    def ratio(side: str) -> float:
        return statistics.median(a / b for a, b in zip(rates["ours"], rates[side], strict=True))

    return {
        "case": name,
        **{side: round(rate, 3) for side, rate in median.items()},
        "compiled": round(median["compiled"], 3) if "compiled" in median else None,
        "ratio": {side: round(ratio(side), 3) for side in rates if not side.startswith("ours")},
        "flops_per_step": work,
        "flops_per_s": work * median["ours"],
        "peak_flops_per_s": statistics.median(peaks),
        "peak_fraction": round(statistics.median(fractions), 3),
        # Measured on a CPU only, because compiling each operation for a GPU takes too long.
        "alone_fraction": round(seconds_alone(found) * median["ours"], 3) if DEVICE.type == "cpu" else None,
        "loss_difference": difference,
    }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=None)
    columns = ["case", "ours", "loader", "resident", "compiled", "GFLOP/s", "of peak", "alone", "losses differ"]
    for column in columns:
        table.add_column(column, justify="left" if column == "case" else "right")

    def beside(row: dict[str, Any], side: str) -> str:
        return f"{row[side]:.4g} ({row['ratio'][side]:.2f}x)" if row.get(side) else "-"

    for row in rows:
        table.add_row(
            row["case"],
            f"{row['ours']:.4g}",
            *(beside(row, side) for side in ("eager_loader", "eager_resident", "compiled")),
            f"{row['flops_per_s'] / 1e9:.0f}",
            f"{row['peak_fraction']:.2f}",
            "-" if row["alone_fraction"] is None else f"{row['alone_fraction']:.2f}",
            f"{row['loss_difference']:.0e}",
        )
        for side in ("cuda_graph", "cuda_graph_bfloat16"):
            if side in row:
                table.add_row(f"  {side}", beside(row, side))
        if "ours_bfloat16" in row:
            table.add_row("  ours_bfloat16", f"{row['ours_bfloat16']:.4g}")
    Console(width=120).print(table)


def show_floors(rows: list[dict[str, Any]]) -> None:
    """Print a table of the time of each case's step, its floor, and the time of the fastest form of PyTorch."""
    table = Table(title=None)
    for column in ("case", "step", "products alone", "fastest PyTorch", "of them"):
        table.add_column(column, justify="left" if column in ("case", "of them") else "right")
    for row in rows:
        own, peer = 1000 / row["ours"], min(row["ratio"], key=row["ratio"].__getitem__)
        floor = "-" if row["alone_fraction"] is None else f"{own * row['alone_fraction']:.3g} ms"
        table.add_row(
            row["case"], f"{own:.3g} ms", floor, f"{own * row['ratio'][peer]:.3g} ms", peer.removeprefix("eager_")
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), default=list(CASES), help="the cases to measure (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=7, help="the number of measurements of each side (default: 7)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=None,
        help="the file for the results (default: outputs/bench.json, or outputs/bench_KIND.json)",
    )
    parser.add_argument(
        "--around", action="store_true", help="measure start-up, memory, logging and other costs outside the step"
    )
    parser.add_argument(
        "--devices", action="store_true", help="measure a step on 1 to 8 devices and on two processes"
    )
    parser.add_argument(
        "--features", action="store_true", help="measure the Inception features and their Frechet distance"
    )
    parser.add_argument(
        "--private", action="store_true", help="measure a private update of the discriminator against a plain one"
    )
    parser.add_argument(
        "--tuning", action="store_true", help="measure the options of the compiler that train.tune chooses from"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="measure everything on one GPU; --gpu --help lists the options"
    )
    parser.add_argument(
        "--reading", action="store_true", help="measure reading images from a folder, against PyTorch's DataLoader"
    )
    parser.add_argument(
        "--files", type=int, default=50_000, help="the number of files for --reading (default: 50,000)"
    )
    parser.add_argument(
        "--images", type=int, default=256, help="the number of images for --features (default: 256)"
    )
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {jax.devices()[0].device_kind}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    kinds = ("around", "devices", "features", "private", "reading", "tuning")
    kind = next((f"_{kind}" for kind in kinds if getattr(arguments, kind)), "")
    path = arguments.json or Path("outputs") / f"bench{kind}.json"

    def write(rows: list[dict[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=2) + "\n")

    if arguments.around:
        import around

        rows = around.measure()
    elif arguments.devices:
        import devices

        rows = devices.measure(arguments.repeats)
        devices.show(rows)
    elif arguments.features:
        import features

        rows = features.measure(arguments.images, arguments.repeats)
        features.show(rows)
    elif arguments.private:
        import private

        rows = private.measure(arguments.repeats)
        private.show(rows)
    elif arguments.tuning:
        import tuning

        rows = tuning.measure(arguments.cases)
        tuning.show(rows)
    elif arguments.reading:
        import reading

        rows = reading.measure(arguments.files, arguments.repeats, os.cpu_count() or 1)
        reading.show(rows)
    else:
        top, rows, failed = peak(), [], []
        with colour_images() as folder:
            for name in arguments.cases:
                print(f"{name} ...", flush=True)
                try:
                    rows.append(measure(name, CASES[name], Path(folder), arguments.repeats, top))
                except (Exception, SystemExit) as error:  # the other cases are measured nevertheless
                    failed.append(f"{name}: {str(error).strip() or type(error).__name__}")
                    print(failed[-1], flush=True)
                write(rows)
        show(rows)
        show_floors(rows)
        if failed:
            sys.exit("\n".join(failed))
    write(rows)
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
