"""Stacked MNIST: data with 1,000 known modes, made by stacking three digits as colour channels."""

from __future__ import annotations

import dataclasses

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, spec_of
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.tfds import tfds
from gan_cli.types import Digits, PositiveInt


def stacked_mnist(*, digits: Digits = "mnist5k", size: PositiveInt = 128_000) -> Dataset:
    """Stacked MNIST: images with a digit in each of three colour channels, and 1,000 classes.

    Each 28x28x3 image stacks three digits that are drawn with replacement (Metz et al. 2017, section 3.3.1). The
    default number of images follows Srivastava et al. 2017. The label, 0 to 999, is the number that the three
    digits form. The images are identical in every run.

    Args:
        digits: source of the digits. With ``mnist5k``, the source is 4,500 digits with balanced classes, which need
            no download. With ``mnist``, the source is the 60,000 training digits of MNIST, which TFDS prepares.
        size: number of examples in the data set.
    """
    data = mnist5k() if digits == "mnist5k" else tfds(name="mnist", version="3.0.1")
    images, labels = data.arrays["x"], data.arrays["label"]
    chosen = np.random.Generator(np.random.PCG64(0)).integers(0, data.size, (size, 3))
    return dataclasses.replace(
        data,
        name=f"stacked_mnist of {digits}",
        spec=spec_of(Image(28, 28, 3), 1000),
        examples={
            "x": np.moveaxis(images[chosen, :, :, 0], 1, -1),
            "label": (labels[chosen] @ (100, 10, 1)).astype(np.int32),
        },
        held_out=None,
        class_names=(),
        passed_over={},
        notes=(),
        duplicates="keep",
    )
