"""Data sets: each target in ``configs/dataset/`` is a function that returns a ``Dataset``."""

from gan_cli.data.dataset import Dataset

__all__ = ["Dataset"]
