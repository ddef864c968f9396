"""Reads examples for evaluation from a folder or zip file of images, or from an ``.npz`` file."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from PIL import Image

from gan_cli.data import features, folder, scans
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import feature_of, spec_of
from gan_cli.data.images import FORMATS, BadImage, array_values
from gan_cli.data.layout import list_files, read
from gan_cli.data.scans import SCANS
from gan_cli.data.series.feature import Series
from gan_cli.data.text.feature import Tokens
from gan_cli.data.video.feature import Video
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Bits, Feature, Layout


def external_samples(path: Path, feature: Feature, name: str = "samples") -> Dataset:
    """Data set of the examples in a folder or zip file of images, or in an ``.npz`` file.

    An ``.npz`` file contains the array ``samples``: images ``[n, h, w, c]`` in 0..255, or uint16 in 0..65535,
    clips ``[n, frames, h, w, c]`` in 0..255, points ``[n, features]``, windows of series ``[n, length, columns]``
    in the units of the data, or integer tokens ``[n, length]`` of texts. The file may also contain an array
    ``labels`` of non-negative integers ``[n]``. A reference of series may contain the array ``held_out``, windows
    that the generator has not seen. For tokens, an array ``vocabulary`` states the text of each number.

    Args:
        path: the folder or file.
        feature: the main feature of the reference with which the examples are compared. Images in a folder or zip
            file are resized, cropped and converted to the shape of the reference.
        name: another name that the array ``samples`` may have, e.g. that of the output of a task.

    Raises:
        UserError: ``path`` does not exist or contains no examples that can be read, or the examples do not have the
            shape of ``feature``.
    """
    found = _read(path, feature, "flat", name)  # only a reference needs labels, so samples may have any layout
    if found.feature.shape != feature.shape:
        raise UserError(
            f"{path}: the examples have the shape {found.feature.shape}, but the examples of the reference have "
            f"the shape {feature.shape}. Choose a --reference of the same shape."
        )
    return found


def external_reference(path: Path, feature: Feature | None = None) -> Dataset:
    """Data set with which samples are compared, read from the same files as in ``external_samples``.

    Args:
        path: the folder or file.
        feature: the main feature of the samples. Images in a folder or zip file are resized, cropped and converted
            to its shape. With None, their shape is that of the first image.

    Raises:
        UserError: ``path`` does not exist or contains no examples that can be read.
    """
    return _read(path, feature, None)


def names_of(path: Path, data: Dataset, layout: Layout | None = None) -> tuple[str, ...]:
    """The names of the images of ``data``, in its order: relative paths without the suffix.

    The result is empty for an ``.npz`` file, and if some of the images were left out.

    Args:
        path: the folder or zip file from which ``data`` was read.
        data: the data set.
        layout: ``flat`` for samples, None for a reference.
    """
    if path.suffix == ".npz":
        return ()
    found = read(list_files(path, "skip"), layout, str(path)).training
    names = tuple(str(PurePosixPath(file.name).with_suffix("")) for file in found)
    return names if len(names) == data.size else ()


def _read(path: Path, feature: Feature | None, layout: Layout | None, name: str = "samples") -> Dataset:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder. Check the path.")
    return _archive(path, feature, name) if path.suffix == ".npz" else _images(path, feature, layout)


def _images(path: Path, feature: Feature | None, layout: Layout | None) -> Dataset:
    if not path.is_dir() and not zipfile.is_zipfile(path):
        raise UserError(
            f"{path}: the file is not a zip file. Choose a folder or zip file of images, or an .npz file with the "
            "array `samples`."
        )
    if feature is not None and not isinstance(feature, features.Image):
        raise UserError(
            f"{path}: images cannot be compared with a reference of {feature.noun}. Choose a --reference of "
            "images, for example --reference=mnist5k."
        )
    height, width, channels = _first(path) if feature is None else feature.shape
    bits: Bits = 8 if feature is None or feature.bits == 8 else 16
    try:
        return folder.folder(
            path=str(path), resolution=(height, width), channels=channels, bits=bits, layout=layout
        )
    except UserError as error:
        raise UserError(str(error).removeprefix("dataset.path=")) from error


def _first(path: Path) -> tuple[int, int, int]:
    """Height, width and number of channels of the first image that can be opened."""
    listing = list_files(path, "skip")
    if listing.kind in SCANS:
        return scans.first_shape(path, listing)
    for _, content in folder.contents_of(path, listing.files):
        if not isinstance(content, bytes):
            continue
        if listing.kind == "arrays":
            try:
                height, width, channels = array_values(content).shape
                return height, width, channels
            except (BadImage, ValueError, OSError):
                continue
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                grey = image.mode in ("1", "L", "I", "I;16")
                # The values 5 to 8 of the EXIF orientation exchange height and width.
                width, height = image.size[::-1] if image.getexif().get(0x0112, 1) > 4 else image.size
                return height, width, 4 if image.has_transparency_data else 1 if grey else 3
        except (OSError, Image.DecompressionBombError):
            continue
    return 32, 32, 3  # arbitrary values: no image can be opened, so ``folder.folder`` raises an error


def _archive(path: Path, like: Feature | None, name: str) -> Dataset:
    try:
        arrays = files.read_arrays(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the file cannot be read as an .npz file ({error}). Save the examples again, for example with "
            "numpy.savez('samples.npz', samples=array)."
        ) from error
    if name in arrays:
        arrays.setdefault("samples", arrays[name])
    if "samples" not in arrays:
        raise UserError(
            f"{path}: the file has no array `samples`. Its arrays are: "
            f"{', '.join(filter(None, arrays)) or 'none'}. Save the examples under this name, for example with "
            "numpy.savez('samples.npz', samples=array)."
        )
    samples, labels = arrays["samples"], arrays.get("labels")
    if not samples.size:
        raise UserError(
            f"{path}: the array `samples` is empty (its shape is {samples.shape}). Choose another file."
        )
    if isinstance(like, Tokens):
        return Dataset(path.name, {"x": like}, {"x": _tokens(path, samples, arrays.get("vocabulary"), like)})
    windows = samples.ndim == 3 and (like is None or isinstance(like, Series))
    if samples.ndim not in (2, 4, 5) and not windows:
        raise UserError(
            f"{path}: the array `samples` has the shape {samples.shape}. Save images as [n, height, width, "
            "channels], clips as [n, frames, height, width, channels], windows of series as [n, length, columns] "
            "and points as [n, features]."
        )
    if samples.dtype.kind not in "uif":
        raise UserError(
            f"{path}: the array `samples` has the dtype {samples.dtype}. Save images and clips as uint8, "
            "and points as float32."
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise UserError(f"{path}: some samples contain NaN or infinite values. Remove these samples.")
    if samples.ndim > 3:
        noun = "images" if samples.ndim == 4 else "clips"
        low, high = samples.min(), samples.max()
        # Some programs save values of 8 bits as uint16.
        deep = samples.ndim == 4 and samples.dtype == np.uint16
        deep = deep and (high > 255 or (isinstance(like, features.Image) and like.bits == 16))
        if not deep and not (low >= 0 and high <= 255):
            raise UserError(
                f"{path}: {noun} must have values in 0..255, but the values of `samples` range from {low:g} to "
                f"{high:g}. Scale the {noun} to 0..255."
            )
        if samples.dtype.kind == "f" and high <= 1:
            raise UserError(
                f"{path}: {noun} must have values in 0..255, but the values of `samples` range from {low:g} to "
                f"{high:g}. If the {noun} are scaled to 0..1, multiply them by 255. Otherwise, save them as uint8."
            )
        samples = samples if deep else np.rint(samples).astype(np.uint8)
    else:
        with np.errstate(over="ignore"):
            samples = samples.astype(np.float32)
        if not np.isfinite(samples).all():
            raise UserError(f"{path}: some samples contain values that are too large for float32. Remove them.")
    if labels is not None:
        _check_labels(path, labels, len(samples))
    classes = None if labels is None else int(labels.max()) + 1
    feature: Feature | None
    if samples.ndim == 5:
        feature = Video(*samples.shape[1:])
    else:
        feature = _windows(*samples.shape[1:]) if windows else feature_of(samples.shape[1:])
    assert feature is not None
    if samples.dtype == np.uint16:
        feature = replace(cast(features.Image, feature), bits=16)
    examples = {"x": samples} | ({} if labels is None else {"label": labels.astype(np.int32)})
    held_out = _held_out(path, arrays["held_out"], samples) if windows and "held_out" in arrays else None
    return Dataset(path.name, spec_of(feature, classes), examples, held_out)


def _tokens(path: Path, samples: np.ndarray, vocabulary: np.ndarray | None, like: Tokens) -> np.ndarray:
    """Tokens ``[n, length]`` of a file, as numbers of the tokens of ``like``."""
    if samples.ndim != 2 or samples.shape[1] != like.length or samples.dtype.kind not in "ui":
        raise UserError(
            f"{path}: the array `samples` holds {samples.dtype} {samples.shape}, but texts of the reference are "
            f"integers [n, {like.length}]. Save texts of this length, or choose another --reference."
        )
    known = len(like.vocabulary) if vocabulary is None else len(vocabulary)
    if samples.min() < 0 or samples.max() >= known:
        raise UserError(
            f"{path}: the tokens must be numbers from 0 to {known - 1}, but range from {samples.min()} to "
            f"{samples.max()}. Save the numbers of tokens of the vocabulary."
        )
    if vocabulary is None:
        return samples.astype(np.int32)
    numbers = {token: number for number, token in enumerate(like.vocabulary)}
    places = np.array([numbers.get(str(token), -1) for token in vocabulary], np.int32)
    found: np.ndarray = places[samples]
    if (found < 0).any():
        lacking = str(vocabulary[samples[found < 0][0]])
        raise UserError(
            f"{path}: contains the token {lacking!r}, which the reference lacks. Choose another --reference, or "
            "leave out these texts."
        )
    return found


def _windows(length: int, columns: int) -> Series:
    """The feature of windows of series, whose values networks see unchanged."""
    return Series(length, tuple(map(str, range(columns))), (0.0,) * columns, (1.0,) * columns)


def _held_out(path: Path, windows: np.ndarray, samples: np.ndarray) -> dict[str, np.ndarray]:
    """The array ``held_out`` of a file with windows of series, for a Dataset."""
    if windows.shape[1:] != samples.shape[1:] or windows.dtype.kind not in "uif" or not len(windows):
        raise UserError(
            f"{path}: the array `held_out` holds {windows.dtype} {windows.shape}, but the windows of `samples` "
            f"have the shape {samples.shape[1:]}. Save both as [n, length, columns]."
        )
    found = windows.astype(np.float32)
    if not np.isfinite(found).all():
        raise UserError(f"{path}: some windows of `held_out` contain NaN or infinite values. Remove these windows.")
    return {"x": found}


def _check_labels(path: Path, labels: np.ndarray, n: int) -> None:
    """Raise a UserError unless ``labels`` contains a class index for each of ``n`` samples."""
    if labels.shape != (n,):
        raise UserError(
            f"{path}: the array `labels` has the shape {labels.shape}, but there are {n} samples. Save one label "
            "for each sample."
        )
    if labels.dtype.kind not in "ui":
        raise UserError(
            f"{path}: the array `labels` has the dtype {labels.dtype}. Save labels as integers, for example int32."
        )
    if labels.min() < 0:
        raise UserError(f"{path}: the array `labels` has negative values. Number the classes from 0.")
