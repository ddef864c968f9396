"""The cases: what is trained, here and by the peers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gan_cli.build import Experiment
from gan_cli.cli.train import experiment

_COLOUR = ["dataset=folder", "dataset.path={colour}", "dataset.resolution=32"]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        overrides: of the shipped defaults, as on the command line.
        network: which of the peers' networks it is.
        penalty: none, r1 or wgan_gp.
        steps: how many steps one measurement makes.
    """

    overrides: tuple[str, ...]
    network: str
    steps: int
    penalty: str = "none"

    def experiment(self, folder: Path) -> Experiment:
        """The objects that our side trains."""
        return experiment([override.format(colour=folder) for override in self.overrides])


# Dropout draws random bits of each side's own, so that losses could not be compared.
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
    """A folder of 1,000 random 32x32 colour images: what they show does not matter to a clock."""
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    for i in range(1000):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(Path(folder.name) / f"{i:04}.png")
    return folder
