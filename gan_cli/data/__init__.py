"""Data: a name in ``configs/dataset/`` -> examples in memory, with the Spec that says what one example is."""

from gan_cli.data.dataset import Dataset

__all__ = ["Dataset"]
