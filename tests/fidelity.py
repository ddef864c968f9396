"""torch-fidelity, an independent implementation of the metrics, for the tests that hold ours against it."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest


def package() -> types.ModuleType:
    """torch-fidelity; skips the test where it is not installed.

    What it needs of torchvision is data sets and other networks. Stand-ins take its place: a binary of it that fits
    the machine's PyTorch is not always to be had.
    """
    pytest.importorskip("torch", exc_type=ImportError)

    class StandIn(types.ModuleType):
        __path__: list[str] = []

        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    if "torch_fidelity" not in sys.modules:
        parts = ("", ".datasets", ".models", ".transforms", ".transforms.functional")
        before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
        for part in parts:
            name = f"torchvision{part}"
            module = sys.modules[name] = StandIn(name)
            if part:
                parent, _, own = name.rpartition(".")
                setattr(sys.modules[parent], own, module)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pytest.importorskip("torch_fidelity", exc_type=ImportError)
        finally:
            for part in parts:
                del sys.modules[f"torchvision{part}"]
            sys.modules.update(before)
    return sys.modules["torch_fidelity"]


def network(path: Path, seed: int = 0):
    """torch-fidelity's Inception network with random weights, which are saved at ``path`` as PyTorch saves them."""
    import torch

    package()
    from torch_fidelity import feature_extractor_inceptionv3 as module

    features = ["2048", "logits_unbiased"]
    torch.manual_seed(seed)
    load = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda self, state: None  # the real weights are 95 MB away
    try:
        torch.save({}, path)
        made = module.FeatureExtractorInceptionV3("random", features, feature_extractor_weights_path=str(path))
    finally:
        torch.nn.Module.load_state_dict = load
    for name, values in made.state_dict().items():
        if name.endswith("conv.weight"):
            fan_in = values[0].numel()
            values.normal_(0, (2 / fan_in) ** 0.5)
        elif name.endswith("bn.weight") or name.endswith("running_var"):
            values.uniform_(0.5, 1.5)
        elif name.endswith("bn.bias") or name.endswith("running_mean"):
            values.normal_(0, 0.1)
    torch.save(made.state_dict(), path, _use_new_zipfile_serialization=False)
    return made.eval()


def images(n: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)
