"""Data sets: functions that return a ``Dataset``, one for each target in ``configs/dataset/``."""

from gan_cli.data.dataset import Dataset

__all__ = ["Dataset"]
