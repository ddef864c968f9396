"""gan_cli: experiments with generative adversarial networks, composed from YAML and compiled with JAX.

``gan_cli.train(["model=mlp", "optim=adam"])`` does from Python what ``gan-train model=mlp optim=adam`` does
from a shell. Importing this package imports neither JAX nor Hydra, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gan_cli.cli.train import train

__version__ = "0.1.0"
__all__ = ["__version__", "train"]


def __getattr__(name: str) -> object:
    if name == "train":
        from gan_cli.cli.train import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
