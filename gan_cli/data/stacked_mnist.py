"""Stacked MNIST: three digits as the colours of one image, so that there are a thousand modes, each with a name."""

from __future__ import annotations

import dataclasses

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.tfds import tfds
from gan_cli.types import Digits, PositiveInt, Spec


def stacked_mnist(*, digits: Digits = "mnist5k", size: PositiveInt = 128_000) -> Dataset:
    """``size`` images 28x28x3, each of three digits drawn with replacement (Metz et al. 2017, section 3.3.1; their
    number in Srivastava et al. 2017). The label is the number that they spell, 0 to 999.

    Args:
        digits: ``mnist5k``, which needs no download (4,500 digits, classes even), or ``mnist``, which TFDS must
            have prepared (the 60,000 for training).
    """
    data = mnist5k() if digits == "mnist5k" else tfds(name="mnist", version="3.0.1")
    assert isinstance(data.examples, np.ndarray) and data.labels is not None
    chosen = np.random.Generator(np.random.PCG64(0)).integers(0, data.size, (size, 3))
    return dataclasses.replace(
        data,
        name=f"stacked_mnist of {digits}",
        spec=Spec((28, 28, 3), -1.0, 1.0, 1000),
        examples=np.moveaxis(data.examples[chosen, :, :, 0], 1, -1),
        labels=(data.labels[chosen] @ (100, 10, 1)).astype(np.int32),
        held_out=None,
        held_out_labels=None,
    )
