"""Examples of any origin, to judge or to judge against: a folder or zip of images, or an archive of an array."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from gan_cli.data import folder
from gan_cli.data.dataset import Dataset
from gan_cli.data.images import FORMATS
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Spec


def external_samples(path: Path, spec: Spec | None = None) -> Dataset:
    """The examples at ``path``: images under a folder or in a zip, or the array ``samples`` of an ``.npz``.

    The array is ``[n, h, w, c]`` of images in 0..255, or ``[n, features]`` of points; ``labels`` ``[n]`` may lie
    beside it.

    Args:
        spec: what they are compared with: images in files are resized and cropped to it; without it, to the first.

    Raises:
        UserError: there is nothing of that kind, or it is not of the spec's shape.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    found = _archive(path) if path.suffix == ".npz" else _images(path, spec)
    if spec is not None and found.spec.shape != spec.shape:
        raise UserError(f"{path}: its examples are {found.spec.shape}, those they are compared with {spec.shape}.")
    return found


def _images(path: Path, spec: Spec | None) -> Dataset:
    if spec is None:
        side, channels = _first(path)
    elif not spec.is_image or spec.shape[0] != spec.shape[1]:
        raise UserError(f"{path}: images cannot be compared with examples of {spec.shape}.")
    else:
        side, _, channels = spec.shape
    try:
        return folder.folder(path=str(path), resolution=side, channels=1 if channels == 1 else 3)
    except UserError as error:
        raise UserError(str(error).removeprefix("dataset.path=")) from error


def _first(path: Path) -> tuple[int, int]:
    """The shorter side and the channels of the first image that can be read."""
    names = folder.files_in(path) if path.is_dir() or zipfile.is_zipfile(path) else []
    for _, content in folder.contents_of(path, names):
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return min(image.size), 1 if image.mode in ("1", "L", "I", "I;16") else 3
        except (OSError, Image.DecompressionBombError):
            continue
    return 32, 3  # what is wrong is told of where all are read


def _archive(path: Path) -> Dataset:
    try:
        arrays = files.read_arrays(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an archive of arrays ({error}).") from error
    if "samples" not in arrays:
        raise UserError(f"{path}: holds no array `samples`; there is {', '.join(filter(None, arrays)) or 'none'}.")
    samples, labels = arrays["samples"], arrays.get("labels")
    if samples.ndim not in (2, 4) or not samples.size or samples.dtype.kind not in "uif":
        raise UserError(f"{path}: samples {samples.shape} of {samples.dtype} are neither images nor points.")
    if samples.ndim == 4:
        if not (samples.min() >= 0 and samples.max() <= 255) or (samples.dtype.kind == "f" and samples.max() <= 1):
            raise UserError(f"{path}: images lie in 0..255, these in {samples.min():g}..{samples.max():g}.")
        samples = np.rint(samples).astype(np.uint8)
    else:
        with np.errstate(over="ignore"):
            samples = samples.astype(np.float32)
        if not np.isfinite(samples).all():
            raise UserError(f"{path}: some of its samples are not finite.")
    if labels is not None and (
        labels.shape != (len(samples),) or labels.dtype.kind not in "ui" or labels.min() < 0
    ):
        raise UserError(f"{path}: labels {labels.shape} of {labels.dtype} are not a class for each sample.")
    low, high = (-1.0, 1.0) if samples.ndim == 4 else (None, None)
    classes = None if labels is None else int(labels.max()) + 1
    spec = Spec(samples.shape[1:], low, high, classes)
    return Dataset(path.name, spec, samples, None if labels is None else labels.astype(np.int32))
