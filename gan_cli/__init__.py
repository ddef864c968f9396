"""gan_cli: experiments with generative adversarial networks, composed from YAML and compiled with JAX.

``gan_cli.train(["model=mlp", "optim=adam"])`` does from Python what ``gan-train model=mlp optim=adam`` does
from a shell; ``gan_cli.experiment`` builds the same objects and trains nothing. Importing this package imports
neither JAX nor Hydra, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gan_cli.cli.train import train
    from gan_cli.config.build import experiment

__version__ = "0.1.0"
__all__ = ["__version__", "experiment", "train"]


def __getattr__(name: str) -> object:
    if name == "train":
        from gan_cli.cli.train import train

        return train
    if name == "experiment":
        from gan_cli.config.build import experiment

        return experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
