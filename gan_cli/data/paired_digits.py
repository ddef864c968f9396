"""Pairs for image translation, made from the digits of mnist5k: a binary image ``a``, and the digit ``b``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label
from gan_cli.data.mnist5k import mnist5k
from gan_cli.types import Duplicates

_MARGIN = 1  # pixels around an image in which the Sobel filter repeats its border


def edges(*, flip: bool = False, duplicates: Duplicates = "warn") -> Dataset:
    """Edge maps ``a`` and digits ``b``: 4,500 pairs for training and 500 held out, 28x28x1, labelled.

    The digits, their order and their split are those of ``mnist5k``. An edge map is 255 where the Sobel magnitude
    of the digit exceeds 0.2, and 0 elsewhere, so that it shows a double outline of each stroke. The magnitude is
    sqrt(h^2 + v^2) / (4 sqrt 2), where h and v are the responses of the digit, scaled to [0, 1], to the kernel
    [[1, 0, -1], [2, 0, -2], [1, 0, -1]] and its transpose, with repeated border pixels. Its range is [0, 1], as for
    ``skimage.filters.sobel``.

    Args:
        flip: whether training mirrors both images of each pair left to right with probability 1/2, independently in
            every batch.
        duplicates: treatment of pairs whose images are both copies, exact or near. ``warn`` states their numbers
            before training, ``drop`` leaves out training pairs that repeat another training pair or a held-out
            pair, and ``keep`` skips the search.
    """
    return _pairs("edges of mnist5k", edge_map, flip, duplicates)


def mosaic(*, flip: bool = False, duplicates: Duplicates = "warn") -> Dataset:
    """Mosaics ``a`` and digits ``b``: 4,500 pairs for training and 500 held out, 28x28x1, labelled.

    The digits, their order and their split are those of ``mnist5k``. A mosaic divides the digit into 7x7 boxes of
    4x4 pixels. All 16 pixels of a box are 255 if the mean of the digit, scaled to [0, 1], exceeds 0.3 in the box,
    and 0 otherwise. Different digits have the same mosaic.

    Args:
        flip: whether training mirrors both images of each pair left to right with probability 1/2, independently in
            every batch.
        duplicates: treatment of pairs whose images are both copies, exact or near. ``warn`` states their numbers
            before training, ``drop`` leaves out training pairs that repeat another training pair or a held-out
            pair, and ``keep`` skips the search.
    """
    return _pairs("mosaics of mnist5k", mosaic_of, flip, duplicates)


def edge_map(digits: np.ndarray) -> np.ndarray:
    """Binary edge maps (0 or 255) of grey images, both uint8 ``[n, height, width, 1]``, as in ``edges``."""
    padded = np.pad(digits[..., 0].astype(np.int32), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), "edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    h = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    v = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    # In units of 1/255, the square of the magnitude is (h^2 + v^2) / 32, and the threshold is 0.2 * 255 = 51.
    # Integers make the edge maps equal on all machines.
    return _binary(h**2 + v**2 > 32 * 51**2)


def mosaic_of(digits: np.ndarray) -> np.ndarray:
    """Binary mosaics (0 or 255) of grey images, both uint8 ``[n, height, width, 1]``, as in ``mosaic``."""
    n, height, width, _ = digits.shape
    boxes = digits.reshape(n, height // 4, 4, width // 4, 4).sum((2, 4), dtype=np.int32)
    on = 10 * boxes > 3 * 16 * 255  # integers, as for edge maps
    return _binary(on.repeat(4, axis=1).repeat(4, axis=2))


def _binary(on: np.ndarray) -> np.ndarray:
    return np.where(on, 255, 0).astype(np.uint8)[..., None]


def _pairs(name: str, simplify: Callable[[np.ndarray], np.ndarray], flip: bool, duplicates: Duplicates) -> Dataset:
    digits = mnist5k(flip=flip)

    def paired(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"a": simplify(arrays["x"]), "b": arrays["x"], "label": arrays["label"]}

    assert digits.held_out is not None
    return Dataset(
        name=name,
        spec={"a": Image(28, 28, 1), "b": Image(28, 28, 1), "label": Label(10)},
        examples=paired(digits.arrays),
        held_out=paired(digits.held_out),
        flip=flip,
        class_names=digits.class_names,
        duplicates=duplicates,
    )
