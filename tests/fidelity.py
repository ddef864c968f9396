"""torch-fidelity as a reference for the metrics, and random weights for the Inception networks of both packages.

Importing this module raises ModuleNotFoundError if torch-fidelity is not installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

# torch-fidelity imports torchvision, which the tests do not need and which must be built for the installed PyTorch.
# Mock modules replace torchvision during the import.
_TORCHVISION_MOCKS = {
    f"torchvision{name}": mock.MagicMock() for name in ("", ".datasets", ".transforms", ".transforms.functional")
}
sys.modules.update(_TORCHVISION_MOCKS)
from torch_fidelity import feature_extractor_inceptionv3 as inception
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

for name in _TORCHVISION_MOCKS:
    del sys.modules[name]

__all__ = ["extractor", "metric_fid", "metric_isc", "metric_kid", "metric_prc", "random_weights"]


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights for the Inception network, scaled so that activations neither vanish nor grow.

    The running statistics of every batch normalisation are random too.
    """
    network = inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(inception, "load_state_dict_from_url"),
        mock.patch.object(network, "load_state_dict"),
        torch.device("meta"),
    ):
        shapes = {name: value.shape for name, value in network("shapes", ["2048"]).state_dict().items()}
    rng = np.random.default_rng(seed)

    def drawn(name: str, shape: torch.Size) -> np.ndarray:
        if len(shape) > 1:
            return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        if name.endswith(("running_var", "bn.weight")):
            return rng.uniform(0.7, 1.3, shape).astype(np.float32)
        return rng.normal(0, 0.1, shape).astype(np.float32)

    return {name: torch.from_numpy(drawn(name, shape)) for name, shape in shapes.items() if shape}


def extractor(
    weights: Path, device: torch.device | str = "cpu"
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from uint8 images ``[n, h, w, c]`` to torch-fidelity's features and unbiased logits.

    ``weights`` is the path of the file with the network's weights.
    """
    network = inception.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"], str(weights)).to(device)

    def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()
        with torch.no_grad():
            features, logits = network(x.to(device))
        return features.cpu().numpy(), logits.cpu().numpy()

    return extract
