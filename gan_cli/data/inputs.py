"""Reads the inputs of tasks from ``.npz`` and ``.npy`` files, folders and zip files of images, and pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gan_cli.data import folder
from gan_cli.data.features import Image, Label
from gan_cli.data.images import SUFFIXES, Skipped, decode_all
from gan_cli.data.layout import File, list_files, printable
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Feature

Arrays = dict[str, np.ndarray]


def read_inputs(path: Path, features: Mapping[str, Feature]) -> tuple[Arrays, list[str]]:
    """The inputs of a task in a file or folder, in the order of the file or folder.

    An ``.npz`` file contains an array for each input, with the name of the input. The array of the only input that
    is not a label may also have the name ``samples`` or ``x``, and the array of the input ``label`` the name
    ``labels``. An ``.npy`` file, a folder or zip file of images and a picture provide one input. Pictures are
    resized, cropped and converted as for training.

    Args:
        path: the file or folder.
        features: the features of the inputs by name. Labels may be missing.

    Returns:
        A pair: the arrays by name, ``[n, *stored_shape]`` in the dtype of the feature, and the names of the rows.
        The list of names is empty if the rows have no names.

    Raises:
        UserError: ``path`` does not exist or cannot be read, or an array is missing or does not fit its feature.
    """
    if not path.exists():
        raise UserError(f"--input {path}: there is no such file or folder. Check the path.")
    if path.suffix in (".npz", ".npy"):
        return _arrays(path, features), []
    needed = [name for name, feature in features.items() if not isinstance(feature, Label)]
    feature = features[needed[0]]
    if len(needed) > 1 or not isinstance(feature, Image):
        wanted = ", ".join(f"`{name}` ({described(features[name])})" for name in needed)
        raise UserError(f"--input {path}: does not provide the inputs of the task. Use an .npz file with {wanted}.")
    images, names = _pictures(path, feature)
    return {needed[0]: images}, names


def _arrays(path: Path, features: Mapping[str, Feature]) -> Arrays:
    try:
        arrays = files.read_arrays(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--input {path}: the file cannot be read ({error}). Save the arrays again, for example with "
            "numpy.savez('inputs.npz', x=array)."
        ) from error
    needed = [name for name, feature in features.items() if not isinstance(feature, Label)]
    found: Arrays = {}
    for name, feature in features.items():
        others = (f"{name}s",) if isinstance(feature, Label) else ("samples", "x", "") if len(needed) == 1 else ()
        stored = next((arrays[one] for one in (name, *others) if one in arrays), None)
        if stored is not None:
            found[name] = _checked(path, name, feature, stored)
        elif not isinstance(feature, Label):
            there = ", ".join(filter(None, arrays)) or "none" if arrays else "none"
            raise UserError(
                f"--input {path}: the file has no array `{name}`. Its arrays are: {there}. Save an array of this "
                f"name: {described(feature)}."
            )
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(
            f"--input {path}: the arrays have different lengths ({each}). Save one row for each example."
        )
    return found


def described(feature: Feature) -> str:
    """The arrays that fit a feature, e.g. "images [n, 28, 28, 1] in 0..255"."""
    if isinstance(feature, Label):
        return f"labels [n] from 0 to {feature.classes - 1}"
    values = " in 0..255" if np.dtype(feature.dtype) == np.uint8 else ""
    return f"{feature.noun} [{', '.join(map(str, ('n', *feature.stored_shape)))}]{values}"


def _checked(path: Path, name: str, feature: Feature, array: np.ndarray) -> np.ndarray:
    """The array in the dtype of the feature.

    Raises:
        UserError: the shape, the dtype or the values of the array do not fit the feature.
    """
    dtype = np.dtype(feature.dtype)
    problem = None
    if array.shape[1:] != feature.stored_shape or not array.ndim or not len(array):
        problem = f"has the shape {list(array.shape)}"
    elif array.dtype.kind not in ("ui" if dtype == np.int32 else "uif"):
        problem = f"has the dtype {array.dtype}"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        problem = "contains NaN or infinity"
    else:
        low, high = array.min(), array.max()
        ends = (0, 255) if dtype == np.uint8 else (0, feature.classes - 1) if isinstance(feature, Label) else None
        # Images in floats up to 1 are scaled to 0..1 or -1..1 rather than 0..255.
        scaled = dtype == np.uint8 and array.dtype.kind == "f" and high <= 1
        if (ends is not None and not ends[0] <= low <= high <= ends[1]) or scaled:
            problem = f"has values from {low:g} to {high:g}"
    if problem is not None:
        raise UserError(f"--input {path}: the array of the input {name} {problem}. Save {described(feature)}.")
    rounded = np.rint(array) if dtype.kind in "ui" and array.dtype.kind == "f" else array
    with np.errstate(over="ignore"):
        converted = rounded.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        raise UserError(f"--input {path}: the array of the input {name} has values that are too large for float32.")
    return converted


def _pictures(path: Path, feature: Image) -> tuple[np.ndarray, list[str]]:
    """The images of a folder, a zip file or a picture, ``[n, h, w, c]`` in uint8, and their names."""
    if path.is_dir() or zipfile.is_zipfile(path):
        root, listed = path, list_files(path, "skip").files
    elif path.name.lower().endswith(SUFFIXES):
        root, listed = path.parent, [File(path.name, path.name)]
    else:
        raise UserError(
            f"--input {path}: the file has none of the known formats. Choose an .npz or .npy file, a folder or zip "
            f"file of images, or a picture ({', '.join(SUFFIXES)})."
        )
    shape = feature.height, feature.width
    contents = folder.contents_of(root, listed)
    decoded = list(decode_all(contents, shape, feature.channels, "skip", Skipped()))
    if not decoded:
        raise UserError(f"--input {path}: contains no images that can be decoded. Choose another file or folder.")
    return np.stack([image for _, image in decoded]), [printable(name) for name, _ in decoded]
