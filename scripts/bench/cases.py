"""The cases of the benchmark: the setups that gan_cli and its PyTorch peers train."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
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
    """

    overrides: tuple[str, ...]
    network: str
    steps: int
    penalty: str = "none"

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

CASES = {
    "mlp-64": Case(_MLP, "mlp", 400),
    "mlp-256": Case((*_MLP, "train.batch_size=256"), "mlp", 200),
    "dcgan-28": Case(("model=dcgan",), "dcgan", 10),
    "dcgan-32": Case(("model=dcgan", *_COLOUR), "dcgan", 8),
    "resnet-32": Case(
        ("model=resnet", "model.generator.width=64", "model.discriminator.width=64", "loss=hinge", *_COLOUR),
        "resnet",
        4,
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
