"""MedMNIST (Yang et al. 2023): small medical images with official splits, in an ``.npz`` file for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, spec_of
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Duplicates, HeldOutSplit, NonNegativeInt

_KEYS = tuple(f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels"))
_ORGANS = (
    "bladder", "left femur", "right femur", "heart", "left kidney", "right kidney", "liver", "left lung",
    "right lung", "pancreas", "spleen",
)  # fmt: skip
# The names of the classes by the name of the file. The grades of retinamnist have no names.
_NAMES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal mucosa",
        "cancer-associated stroma", "adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma",
        "melanocytic nevi", "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cells",
        "interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments",
        "thick ascending limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip


def medmnist(
    *,
    path: str,
    held_out: HeldOutSplit = "test",
    flip: bool = False,
    duplicates: Duplicates = "warn",
    canaries: NonNegativeInt = 0,
) -> Dataset:
    """MedMNIST: labelled medical images of 28 to 224 pixels a side, with their official splits.

    Yang et al. 2023. The file comes from https://medmnist.com, e.g. ``pneumoniamnist.npz``.
    Images are grey or RGB, with 8 bits per value. Example:
    ``gan-train dataset=medmnist dataset.path=pneumoniamnist.npz``.

    Args:
        path: the ``.npz`` file. It contains the arrays ``train_images``, ``train_labels``, and likewise for ``val``
            and ``test``.
        held_out: the split of the held-out images. Training uses the images of ``train`` only, so that the third
            split is not used.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.
        canaries: number of random images that test a claim of privacy. Each is added to the training images by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.

    Raises:
        UserError: the file does not exist, is not a file of MedMNIST, has volumes instead of images, or has several
            labels for each image.
    """
    arrays = _read(path)
    images = _shape(path, arrays)
    labels = {split: _labels(path, arrays, split) for split in ("train", "val", "test")}
    names = _NAMES.get(Path(path).stem.lower().split("_")[0], ())
    classes = 1 + max(int(one.max()) for one in labels.values())
    names = names if len(names) >= classes else ()

    def part(split: str) -> dict[str, np.ndarray]:
        stored = arrays[f"{split}_images"]
        return {"x": stored.reshape(len(stored), *images), "label": labels[split]}

    unused = next(split for split in ("val", "test") if split != held_out)
    return Dataset(
        name=Path(path).stem,
        spec=spec_of(Image(*images), len(names) or classes),
        examples=part("train"),
        held_out=part(held_out),
        flip=flip,
        class_names=names,
        notes=(
            f"{images[1]}x{images[0]} pixels, {'RGB' if images[2] == 3 else 'grey'}",
            f"train for training, {held_out} held out; {unused} ({len(labels[unused]):,} images) is not used",
        ),
        duplicates=duplicates,
        canaries=canaries,
    )


def _read(path: str) -> dict[str, np.ndarray]:
    file = files.expanded(path)
    source = "Choose a file of MedMNIST, for example pneumoniamnist.npz from https://medmnist.com."
    if not file.is_file():
        raise UserError(f"dataset.path={path}: there is no such file. {source}")
    try:
        arrays = files.read_arrays(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"dataset.path={path}: the file cannot be read as an .npz file ({error}). {source}"
        ) from error
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        found = ", ".join(filter(None, arrays)) or "none"
        raise UserError(
            f"dataset.path={path}: the file has no array {missing[0]}. Its arrays are: {found}. {source}"
        )
    return arrays


def _shape(path: str, arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Height, width and channels of the images.

    Raises:
        UserError: the images are not uint8, are volumes, or differ between the splits.
    """
    shapes = {arrays[f"{split}_images"].shape[1:] for split in ("train", "val", "test")}
    shape = min(shapes)
    if len(shape) >= 3 and shape[-1] not in (1, 3):
        raise UserError(
            f"dataset.path={path}: holds volumes {list(shape)}, but this data set reads images. Choose a file of "
            "2D images, e.g. pneumoniamnist.npz, or save slices of the volumes and use dataset=folder."
        )
    dtypes = {arrays[f"{split}_images"].dtype for split in ("train", "val", "test")}
    if len(shapes) > 1 or len(shape) not in (2, 3) or dtypes != {np.dtype(np.uint8)} or 0 in shape:
        raise UserError(
            f"dataset.path={path}: the images must be uint8 of one shape, [n, height, width] or [n, height, width, "
            f"3], but the splits hold {', '.join(sorted(map(str, dtypes)))} of the shapes "
            f"{', '.join(str([*one]) for one in sorted(shapes))}. Download the file again."
        )
    return (*shape, 1) if len(shape) == 2 else shape


def _labels(path: str, arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """The labels of a split as int32 ``[n]``.

    Raises:
        UserError: there are several labels for each image, or the labels are not one class number for each image.
    """
    labels, count = arrays[f"{split}_labels"], len(arrays[f"{split}_images"])
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(
            f"dataset.path={path}: has {labels.shape[1]} labels for each image, because several findings may be "
            "present at once. A conditional model takes one class for each image. Choose a file with one label, "
            "e.g. pneumoniamnist.npz."
        )
    fits = labels.shape in ((count,), (count, 1)) and labels.dtype.kind in "ui" and count > 0
    if not fits or labels.min() < 0:
        raise UserError(
            f"dataset.path={path}: {split}_labels must hold one class number for each image of a split that is "
            f"not empty, but holds {labels.dtype} {list(labels.shape)} for {count} images. Download the file again."
        )
    return labels.reshape(count).astype(np.int32)
