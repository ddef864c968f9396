"""A process of ``python scripts/bench --gpu`` that measures PyTorch. It must not import JAX.

python scripts/bench/gpu_peers.py ROLE CASE    ROLE: eager, compiled or graph
python scripts/bench/gpu_peers.py features
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import children
import numpy as np
import torch
from cases import CASES, Case
from peers import DEVICE, Peer, graph, loader, resident, tensor

_IMAGES, _BATCH = 4096, 64  # of the features; torch-fidelity's default batch


def _sides(role: str, case: Case) -> dict[str, Callable[[], Callable[[int], None]]]:
    """For each side of a role, a function that makes the function to time, which takes the number of steps."""
    config = case.config()
    batch, lr = config["train"]["batch_size"], config["optim"]["lr"]
    loss = config["loss"]["_target_"].rpartition(".")[2]
    count = 256 if children.DRY else 4500
    data = tensor(np.random.default_rng(0).integers(0, 256, (count, *case.shape), np.uint8))

    def peer(precision: str) -> Peer:
        return Peer(case.network, case.shape, loss, case.penalty, lr, bfloat16=precision == "bfloat16")

    if role == "graph":
        if DEVICE.type != "cuda":
            raise RuntimeError("a CUDA graph needs a GPU")
        return {f"graph_{p}": lambda p=p: graph(peer(p), data, batch) for p in ("float32", "bfloat16")}
    if role == "compiled":
        if case.penalty != "none":
            raise RuntimeError("torch.compile does not support second derivatives")
        return {
            f"compiled_{p}": lambda p=p: resident(peer(p).compile(), data, batch) for p in ("float32", "bfloat16")
        }
    return {
        "loader_float32": lambda: loader(peer("float32"), data, batch),
        "resident_float32": lambda: resident(peer("float32"), data, batch),
        "resident_bfloat16": lambda: resident(peer("bfloat16"), data, batch),
    }


def device() -> dict[str, Any]:
    """The device and the settings of this process."""
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    return {
        "device": name,
        "torch": torch.__version__,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
    }


def peak_mebibytes() -> float | None:
    """The peak of the memory that tensors have taken on the device so far. None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None


def _features() -> None:
    """Answer each request with the images per second of torchvision's Inception network, on images of 32x32."""
    from torch.nn import functional as F
    from torchvision.models import inception_v3

    count = 64 if children.DRY else _IMAGES
    network = inception_v3(weights=None, init_weights=False).to(DEVICE).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8))

    @torch.inference_mode()
    def measure() -> float:
        began = time.perf_counter()
        for start in range(0, count, _BATCH):
            x = images[start : start + _BATCH].to(DEVICE).float().div(127.5).sub(1)
            network(F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)).cpu()
        return count / (time.perf_counter() - began)

    measure()
    children.answer({"ready": True})
    for _ in children.requests():
        children.answer({"images_per_second": measure(), "peak_mebibytes": peak_mebibytes()})


def main() -> None:
    if "jax" in sys.modules:
        raise RuntimeError("JAX is imported in a process of PyTorch")
    role, *case = sys.argv[1:]
    if role == "features":
        _features()
        return
    try:
        sides = _sides(role, CASES[case[0]])
    except RuntimeError as error:
        children.answer({"device": device(), "sides": {role: str(error)}})
        return
    children.serve(sides, device(), peak_mebibytes, steps=1 if children.DRY else 50)


if __name__ == "__main__":
    main()
