"""A process of ``python scripts/bench --gpu`` that measures gan_cli. It must not import PyTorch before it measures.

python scripts/bench/gpu_ours.py ours CASE
python scripts/bench/gpu_ours.py ensembles, r3gan or features
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import children
import jax
import numpy as np
from cases import CASES, colour_images
from stepper import endless, stepper

from gan_cli.config.build import experiment

DRY = children.DRY
_MEMBERS = (2,) if DRY else (8, 32, 128)
_IMAGES = 64 if DRY else 4096
# The sizes of the paper for CIFAR-10 (Huang et al. 2024): width, blocks, groups, batch size, height of the images.
_R3GAN = (8, 1, 4, 4, 8) if DRY else (768, 2, 96, 512, 32)


def device() -> dict[str, Any]:
    """The device and the settings of this process."""
    precision = jax.config.jax_default_matmul_precision
    tf32 = jax.default_backend() == "gpu" and precision is None
    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "tf32": tf32}


def peak_mebibytes() -> float | None:
    """The peak of the memory that arrays and programs have taken on the device so far. None if it is not known."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def _case(name: str) -> None:
    case = CASES[name]
    per_call = 2 if DRY else 200 if case.network == "mlp" else 20
    with colour_images() as folder:

        def make(precision: str) -> Callable[[], Callable[[int], None]]:
            more = (*endless(per_call), f"train.precision={precision}", *(["train.batch_size=8"] if DRY else []))
            whole = dataclasses.replace(case, overrides=(*case.overrides, *more))
            return lambda: stepper(whole.experiment(Path(folder)))

        sides = {f"ours_{precision}": make(precision) for precision in ("float32", "bfloat16")}
        children.serve(sides, device(), peak_mebibytes, per_call)


def _seconds(run: Callable[[int], None]) -> float:
    began = time.perf_counter()
    run(0)
    return time.perf_counter() - began


def _ensembles() -> None:
    """A row for each number of members: the cost of a step of the ensemble in steps of a single run, in turn."""
    per_call = 2 if DRY else 200
    overrides = ["model=mlp", *endless(per_call), *(["train.batch_size=8"] if DRY else [])]
    single = stepper(experiment(overrides))
    for members in _MEMBERS:
        many = stepper(experiment([*overrides, f"train.ensemble={members}"]))
        for run in (single, many):
            run(0)
        pairs = [(_seconds(single), _seconds(many)) for _ in range(1 if DRY else 5)]
        seconds = statistics.median(own for _, own in pairs)
        children.answer(
            {
                "members": members,
                "steps_per_second_of_each": round(per_call / seconds, 1),
                "cost_in_single_runs": round(statistics.median(own / one for one, own in pairs), 3),
                "peak_mebibytes": peak_mebibytes(),
            }
        )


def _r3gan() -> None:
    """A row for each precision: the step of R3GAN at the size of the paper, on random images."""
    width, blocks, groups, batch, resolution = _R3GAN
    per_call = 1 if DRY else 10
    sizes = [
        f"model.{player}.{option}={value}"
        for player in ("generator", "discriminator")
        for option, value in (("width", width), ("blocks", blocks), ("groups", groups))
    ]
    with colour_images() as folder:
        sizes += [f"train.batch_size={batch}", f"dataset.resolution={resolution}"]
        data = ["dataset=folder", f"dataset.path={folder}"]
        for precision in ("bfloat16", "float32"):
            e = experiment(["experiment=r3gan", *data, *sizes, *endless(per_call), f"train.precision={precision}"])
            run = stepper(e)
            began = time.perf_counter()
            run(0)
            first = time.perf_counter() - began
            seconds = statistics.median(_seconds(run) for _ in range(1 if DRY else 5)) / per_call
            parameters = sum(leaf.size for leaf in jax.tree.leaves(e.compile().abstract.params))
            children.answer(
                {
                    "precision": precision,
                    "parameters": parameters,
                    "batch": batch,
                    "milliseconds_per_step": round(1000 * seconds, 3),
                    "images_per_second": round(batch / seconds, 1),
                    "seconds_to_compile": round(first, 1),
                    "peak_mebibytes": peak_mebibytes(),
                }
            )


def _random_weights() -> dict[str, Any]:
    """Random weights of the Inception network by the names of the published file, as tensors of PyTorch."""
    try:
        return _fidelity_weights()
    except ModuleNotFoundError:  # torchvision has a network with the same layers
        return _torchvision_weights()


def _fidelity_weights() -> dict[str, Any]:
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    import fidelity

    return fidelity.random_weights()


def _torchvision_weights() -> dict[str, Any]:
    import torch
    from torchvision.models import inception_v3

    with torch.device("meta"):
        shapes = {name: x.shape for name, x in inception_v3(weights=None, init_weights=False).state_dict().items()}
    rng = np.random.default_rng(0)

    def drawn(name: str, shape: Any) -> Any:
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        value = rng.standard_normal(shape, np.float32) * np.float32(spread)
        return torch.from_numpy(np.abs(value) + 0.7 if name.endswith(("running_var", "bn.weight")) else value)

    return {name: drawn(name, shape) for name, shape in shapes.items() if shape and not name.startswith("Aux")}


def _features() -> None:
    """Answer each request with the images per second of the features of the FID, with random weights."""
    import torch  # on the CPU alone, to store the weights in the format of the published file

    from gan_cli.metrics import inception
    from gan_cli.metrics.features import Extractor

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(_random_weights(), path)
        with mock.patch.object(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest()):
            params = jax.device_put(inception.load(path).params)
    extractor = Extractor("inception", "", params, inception.apply, inception.BATCH, True)
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, 32, 32, 3), np.uint8)
    extractor([images[: inception.BATCH]])
    children.answer({"ready": True})
    for _ in children.requests():
        began = time.perf_counter()
        extractor([images])
        rate = _IMAGES / (time.perf_counter() - began)
        children.answer({"images_per_second": rate, "peak_mebibytes": peak_mebibytes()})


def main() -> None:
    role, *case = sys.argv[1:]
    if role == "ours":
        _case(case[0])
        return
    {"ensembles": _ensembles, "r3gan": _r3gan, "features": _features}[role]()
    if role != "features":
        children.answer({"end": True})


if __name__ == "__main__":
    main()
