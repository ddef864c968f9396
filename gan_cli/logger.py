"""Loggers: where metrics go beside ``metrics.jsonl``.

A logger is a view of ``metrics.jsonl`` and ``samples/``: it is given the whole history when a run starts or
resumes, so that it never repeats a step or misses one, whenever it was switched on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Record = dict[str, Any]


class Logger(Protocol):
    """``(directory, records) -> Logger`` opens one on a run's directory with the records so far."""

    def log(self, record: Record) -> None:
        """Add one object of ``metrics.jsonl``."""

    def picture(self, step: int, path: Path) -> None:
        """Add one sample grid."""

    def close(self) -> None:
        """Flush what is pending."""


class TensorBoard:
    """Event files under ``tensorboard/``, written anew from the history when a run resumes."""

    def __init__(self, directory: Path, records: Sequence[Record]):
        from tensorboardX import SummaryWriter

        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(directory / "tensorboard"), flush_secs=30)
        for record in records:
            self.log(record)
        for picture in sorted((directory / "samples").glob("[0-9]*.png")):
            self.picture(int(picture.stem), picture)

    def log(self, record: Record) -> None:
        for name, value in record.items():
            if name not in ("step", "time") and value is not None:
                self._writer.add_scalar(name, value, record["step"], record["time"])

    def picture(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def tensorboard(directory: Path, records: Sequence[Record]) -> TensorBoard:
    """TensorBoard event files: ``tensorboard --logdir outputs``."""
    return TensorBoard(directory, records)
