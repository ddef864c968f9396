"""gan_cli: experiments with generative adversarial networks, composed from YAML and compiled with JAX.

In Python, ``gan_cli.train(["model=mlp", "optim=adam"])`` is equivalent to the shell command
``gan-train model=mlp optim=adam``. ``gan_cli.experiment`` takes the same list and builds the experiment without
training. The package imports JAX and Hydra on first use, so that the command line starts without delay.
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
