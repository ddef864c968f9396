"""Digits in two styles for unpaired image translation: MNIST, and the digits of scikit-learn.

``digits8x8.npz`` contains the test set of the Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998,
UCI Machine Learning Repository, CC BY 4.0) in the order of scikit-learn: uint8 ``images`` [1797, 8, 8] with values
from 0 to 16, and uint8 ``labels`` [1797].
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
from PIL import Image as Picture

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label
from gan_cli.data.mnist5k import mnist5k
from gan_cli.storage.files import read_arrays
from gan_cli.types import Duplicates

HELD_OUT_EVERY = 6  # one of so many 8x8 digits of each class is held out
_SIDE = 20  # the digits of MNIST fit a box of 20x20 pixels in images of 28x28
_MARGIN = 4


def digits_styles(*, flip: bool = False, duplicates: Duplicates = "warn") -> Dataset:
    """Two sets of handwritten digits, 28x28x1, unpaired and labelled: ``a`` is mnist5k, ``b`` is scikit-learn's.

    Domain ``a`` has the digits and the split of ``mnist5k``. Domain ``b`` has the 1,797 digits of 8x8 pixels that
    scikit-learn includes (Alpaydin and Kaynak 1998). They are enlarged to 20x20 pixels by bicubic interpolation, as
    in Pillow, with 0..16 scaled to 0..255, and surrounded by 4 black pixels on each side. Every sixth digit of each
    class, starting with the sixth, is held out.

    Args:
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch
            and domain.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.
    """
    first = mnist5k(flip=flip)
    with as_file(files("gan_cli.data") / "digits8x8.npz") as path:
        arrays = read_arrays(path)
    images, labels = enlarged(arrays["images"]), arrays["labels"].astype(np.int32)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    assert first.held_out is not None
    tests = first.held_out
    return Dataset(
        name="digits of MNIST and of scikit-learn",
        spec={"a": Image(28, 28, 1), "b": Image(28, 28, 1), "label_a": Label(10), "label_b": Label(10)},
        examples={
            "a": first.arrays["x"],
            "b": images[~held_out],
            "label_a": first.arrays["label"],
            "label_b": labels[~held_out],
        },
        held_out={"a": tests["x"], "b": images[held_out], "label_a": tests["label"], "label_b": labels[held_out]},
        flip=flip,
        class_names=first.class_names,
        duplicates=duplicates,
        domain_of={"a": "a", "label_a": "a", "b": "b", "label_b": "b"},
    )


def enlarged(digits: np.ndarray) -> np.ndarray:
    """8x8 digits, uint8 ``[n, 8, 8]`` in 0..16, as images uint8 ``[n, 28, 28, 1]``."""
    grey = (digits.astype(np.int32) * 255 + 8) // 16
    large = [
        np.asarray(Picture.fromarray(digit).resize((_SIDE, _SIDE), Picture.Resampling.BICUBIC))
        for digit in grey.astype(np.uint8)
    ]
    return np.pad(np.stack(large), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))[..., None]
