"""The cases of the benchmark: the setups that gan_cli and its PyTorch peers train."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gan_cli.config import check, compose, quoting

if TYPE_CHECKING:
    from gan_cli.config.build import Experiment

_COLOUR = ["dataset=folder", "dataset.path={colour}", "dataset.resolution=32"]


@dataclass(frozen=True)
class Case:
    """One case of the benchmark, which is a row of its table.

    Attributes:
        overrides: the overrides of ``gan-train``.
        network: the name of the peers' network, a key of ``peers.NETWORKS``.
        steps: the number of steps in one measurement.
        penalty: the penalty of the peers: "none", "r1" or "wgan_gp".
        goal: a mapping from the name of each goal on a CPU to its smallest accepted value. The goal
            ``peak_fraction`` is a fraction of the machine's peak. Every other goal has the name of a peer, and its
            value is the ratio of the speed of gan_cli to the speed of the peer.
    """

    overrides: tuple[str, ...]
    network: str
    steps: int
    penalty: str = "none"
    goal: Mapping[str, float] = field(default_factory=dict)

    def experiment(self, folder: Path, *more: str) -> Experiment:
        """The experiment that gan_cli trains, with ``more`` overrides.

        The colour images, if the case uses them, are in ``folder``.
        """
        from gan_cli.config.build import experiment  # not above, because processes of PyTorch must not import JAX

        return experiment([*(override.format(colour=folder) for override in self.overrides), *more])

    def config(self) -> dict[str, Any]:
        """The checked configuration of the experiment, without a folder of images. JAX is not imported."""
        with compose.session() as hydra:
            composed = compose.compose(hydra, quoting.as_typed([one.format(colour=".") for one in self.overrides]))
            return check.check(compose.ours(composed))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return (32, 32, 3) if any("{colour}" in override for override in self.overrides) else (28, 28, 1)


# Dropout is off, because gan_cli and PyTorch would draw different random bits, and their losses would differ.
_MLP = ("model=mlp", "model.discriminator.dropout=0.0")
_PLAIN = ("model=dcgan", "model.discriminator.norm=none")

_SMALL = {"eager_loader": 5.0, "eager_resident": 3.5, "peak_fraction": 0.7}
_LARGE = {"eager_loader": 3.0, "peak_fraction": 0.75}
_CONVOLUTIONS = {"eager_loader": 1.3, "eager_resident": 1.3, "peak_fraction": 0.65}

CASES = {
    "mlp-64": Case(_MLP, "mlp", 400, goal=_SMALL),
    "mlp-256": Case((*_MLP, "train.batch_size=256"), "mlp", 200, goal=_LARGE),
    "dcgan-28": Case(("model=dcgan",), "dcgan", 10, goal=_CONVOLUTIONS),
    "dcgan-32": Case(("model=dcgan", *_COLOUR), "dcgan", 8, goal=_CONVOLUTIONS),
    "resnet-32": Case(
        ("model=resnet", "model.generator.width=64", "model.discriminator.width=64", "loss=hinge", *_COLOUR),
        "resnet",
        4,
        goal=_CONVOLUTIONS,
    ),
    "mlp-64-r1": Case((*_MLP, "penalty=[r1]"), "mlp", 200, "r1"),
    "mlp-64-wgan-gp": Case((*_MLP, "loss=wgan", "penalty=[wgan_gp]"), "mlp", 200, "wgan_gp"),
    "dcgan-28-r1": Case((*_PLAIN, "penalty=[r1]"), "dcgan-plain", 6, "r1"),
    "dcgan-28-wgan-gp": Case((*_PLAIN, "loss=wgan", "penalty=[wgan_gp]"), "dcgan-plain", 6, "wgan_gp"),
}


def colour_images() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with 1,000 random 32x32 colour images. The contents of images do not affect the speed."""
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    for i in range(1000):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(Path(folder.name) / f"{i:04}.png")
    return folder
