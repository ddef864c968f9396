"""Reads the inputs of tasks from ``.npz`` and ``.npy`` files, folders and zip files of images, and pictures."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from gan_cli.data import folder
from gan_cli.data.features import Image, Label
from gan_cli.data.images import FORMATS, SUFFIXES, BadImage, Skipped, decode_all, has_16_bits
from gan_cli.data.layout import KINDS, File, list_files, printable
from gan_cli.data.text.feature import Tokens
from gan_cli.data.video.feature import Video
from gan_cli.data.video.files import Recording, length, list_recordings, need_av, read
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Feature

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


def read_inputs(
    path: Path, features: Mapping[str, Feature], any_size: bool = False, every_nth: int = 1
) -> tuple[Arrays, list[str]]:
    """The inputs of a task in a file or folder, in the order of the file or folder.

    An ``.npz`` file contains an array for each input, with the name of the input. The array of the only input that
    is not a label may also have the name ``samples`` or ``x``, and the array of the input ``label`` the name
    ``labels``. An ``.npy`` file, a folder or zip file of images and a picture provide one input. Pictures are
    resized, cropped and converted as for training. Of a video, the last frames are the clip, or every n-th of them.

    Args:
        path: the file or folder.
        features: the features of the inputs by name. Labels may be missing.
        any_size: whether images in arrays may have another height and width than their features.
        every_nth: distance in a video between two frames of a clip.

    Returns:
        A pair: the arrays by name, ``[n, *stored_shape]`` in the dtype of the feature, and the names of the rows.
        The list of names is empty if the rows have no names.

    Raises:
        UserError: ``path`` does not exist or cannot be read, or an array is missing or does not fit its feature.
    """
    _check_path(path)
    if path.suffix in (".npz", ".npy"):
        return _arrays(path, features, any_size), []
    needed = [name for name, feature in features.items() if not isinstance(feature, Label)]
    feature = features[needed[0]]
    if len(needed) == 1 and isinstance(feature, Video):
        clips, names = _clips(path, feature, every_nth)
        return {needed[0]: clips}, names
    if len(needed) > 1 or not isinstance(feature, Image):
        wanted = ", ".join(f"`{name}` ({described(features[name])})" for name in needed)
        raise UserError(f"--input {path}: does not provide the inputs of the task. Use an .npz file with {wanted}.")
    images, names = _pictures(path, feature)
    return {needed[0]: images}, names


def _check_path(path: Path) -> None:
    if not path.exists():
        raise UserError(f"--input {path}: there is no such file or folder. Check the path.")


def _arrays(path: Path, features: Mapping[str, Feature], any_size: bool) -> Arrays:
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
            found[name] = _checked(path, name, feature, stored, any_size)
        elif not isinstance(feature, Label):
            there = ", ".join(filter(None, arrays)) or "none" if arrays else "none"
            raise UserError(
                f"--input {path}: the file has no array `{name}`. Its arrays are: {there}. Save an array of this "
                f"name: {described(feature, any_size)}."
            )
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(
            f"--input {path}: the arrays have different lengths ({each}). Save one row for each example."
        )
    return found


def described(feature: Feature, any_size: bool = False) -> str:
    """The arrays that fit a feature, e.g. "images [n, 28, 28, 1] in 0..255", or "images [n, h, w, 1] in 0..255"."""
    if isinstance(feature, Label):
        return f"labels [n] from 0 to {feature.classes - 1}"
    dtype = np.dtype(feature.dtype)
    values = f" in 0..{np.iinfo(dtype).max}" if dtype.kind == "u" else ""
    if isinstance(feature, Tokens):
        values = f" of tokens from {feature.lowest} to {len(feature.vocabulary) - 1}"
    free = any_size and isinstance(feature, Image)
    shape = ("h", "w", feature.shape[-1]) if free else feature.stored_shape
    return f"{feature.noun} [{', '.join(map(str, ('n', *shape)))}]{values}"


def _checked(path: Path, name: str, feature: Feature, array: np.ndarray, any_size: bool) -> np.ndarray:
    """The array in the dtype of the feature.

    Raises:
        UserError: the shape, the dtype or the values of the array do not fit the feature.
    """
    dtype = np.dtype(feature.dtype)
    problem = None
    shape = feature.stored_shape
    if any_size and isinstance(feature, Image) and array.ndim == 4:
        shape = (*array.shape[1:3], feature.channels)
    if array.shape[1:] != shape or not array.ndim or not array.size:
        problem = f"has the shape {list(array.shape)}"
    elif array.dtype.kind not in ("ui" if dtype == np.int32 else "uif"):
        problem = f"has the dtype {array.dtype}"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        problem = "contains NaN or infinity"
    else:
        low, high = array.min(), array.max()
        ends = None
        if dtype.kind == "u":
            ends = (0, np.iinfo(dtype).max)
        elif isinstance(feature, Label):
            ends = (0, feature.classes - 1)
        elif isinstance(feature, Tokens):
            ends = (feature.lowest, len(feature.vocabulary) - 1)
        # Images in floats up to 1 are scaled to 0..1 or -1..1 rather than to the range of integers.
        scaled = dtype.kind == "u" and array.dtype.kind == "f" and high <= 1
        if (ends is not None and not ends[0] <= low <= high <= ends[1]) or scaled:
            problem = f"has values from {low:g} to {high:g}"
    if problem is not None:
        raise UserError(
            f"--input {path}: the array of the input {name} {problem}. Save {described(feature, any_size)}."
        )
    if dtype == np.uint16 and array.dtype == np.uint8:
        return array.astype(dtype) * 257
    rounded = np.rint(array) if dtype.kind in "ui" and array.dtype.kind == "f" else array
    with np.errstate(over="ignore"):
        converted = rounded.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        raise UserError(f"--input {path}: the array of the input {name} has values that are too large for float32.")
    return converted


def _pictures(path: Path, feature: Image) -> tuple[np.ndarray, list[str]]:
    """The images of a folder, a zip file or a picture, ``[n, h, w, c]`` in uint8 or uint16, and their names."""
    root, listed = _listed(path)
    shape = feature.height, feature.width
    contents = folder.contents_of(root, listed)
    decoded = list(decode_all(contents, shape, feature.channels, "skip", Skipped(), feature.bits))
    if not decoded:
        raise no_images(path)
    return np.stack([image for _, image in decoded]), [printable(name) for name, _ in decoded]


def _clips(path: Path, feature: Video, every_nth: int) -> tuple[np.ndarray, list[str]]:
    """The ends of a video, or of each video of a folder, ``[n, frames, h, w, c]`` in uint8, and their names.

    Raises:
        UserError: a video cannot be read or is shorter than a clip, or the folder contains none.
    """
    recordings = [Recording(path.name, path)]
    if path.is_dir():
        recordings, _ = list_recordings(path)
    shape, found = (feature.height, feature.width, feature.channels), list[np.ndarray]()
    span = (feature.frames - 1) * every_nth + 1
    for one in recordings:
        if one.path.suffix.lower() == ".mp4":
            need_av(f"--input {path}")
        try:
            frames = length(one)
            if frames < span:
                raise BadImage(f"it has {frames} frames, and {span} are needed")
            found.append(read(one, range(frames - span, frames, every_nth), shape))
        except BadImage as error:
            raise UserError(
                f"--input {path}: {one.name} cannot be read as a clip ({error}). Choose another file or folder."
            ) from error
    if not found:
        raise UserError(
            f"--input {path}: contains no video. Choose a GIF, PNG, WebP or MP4 file, a folder of them, or a "
            "folder with a sub-folder of frames for each video."
        )
    return np.stack(found), [one.name for one in recordings]


def _listed(path: Path) -> tuple[Path, list[File]]:
    """A pair: a folder or zip file, and the image files in it that ``path`` names."""
    if path.is_dir() or zipfile.is_zipfile(path):
        return path, list_files(path, "skip").files
    if path.name.lower().endswith((*SUFFIXES, *KINDS["dicom"])):
        return path.parent, [File(path.name, path.name)]
    raise UserError(
        f"--input {path}: the file has none of the known formats. Choose an .npz or .npy file, a folder or zip "
        f"file of images, or a picture ({', '.join(SUFFIXES)})."
    )


def no_images(path: Path) -> UserError:
    """The error that a folder or file contains no images that can be decoded."""
    return UserError(f"--input {path}: contains no images that can be decoded. Choose another file or folder.")


class Pictures:
    """The pictures of a folder, a zip file or a file in their original sizes, which are decoded one at a time.

    Pictures that cannot be decoded are skipped with a warning. A first warning also names the conversions that lose
    the transparency of pictures, or a part of their bits per value.

    Args:
        path: the folder or file.
        feature: the feature of the images. Colours and bits per value are converted as for training.
        apart: a folder whose files are left out, e.g. the folder of the outputs.

    Attributes:
        count: number of files.
        skipped: counter of the pictures that were skipped.

    Raises:
        UserError: ``path`` does not exist, or contains no image files.
    """

    def __init__(self, path: Path, feature: Image, apart: Path | None = None):
        _check_path(path)
        self._root, listed = _listed(path)
        if path.is_dir() and apart is not None and apart.resolve().is_relative_to(path.resolve()):
            inside = apart.resolve().relative_to(path.resolve()).as_posix()
            listed = [file for file in listed if not file.name.startswith(f"{inside}/")]
        if not listed:
            raise no_images(path)
        self._files, self._feature, self._named = listed, feature, set[str]()
        self.count, self.skipped = len(listed), Skipped()

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields pairs of the name and the image ``[h, w, c]``, in the order of the names."""
        feature = self._feature
        contents = ((name, self._noted(content)) for name, content in folder.contents_of(self._root, self._files))
        decoded = decode_all(contents, None, feature.channels, "skip", self.skipped, feature.bits)
        return ((printable(name), image) for name, image in decoded)

    def _noted(self, content: bytes | BadImage) -> bytes | BadImage:
        """Logs a loss of transparency or of bits per value, and returns ``content``."""
        losses = _losses(content, self._feature) if isinstance(content, bytes) else []
        for loss in losses:
            if loss not in self._named:
                self._named.add(loss)
                log.warning("--input: %s.", loss)
        return content


def _losses(content: bytes, feature: Image) -> list[str]:
    """Sentences about parts of a picture that images of a feature cannot hold."""
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            transparent, deep = image.has_transparency_data, has_16_bits(image)
    except Exception:  # a damaged picture, which is skipped when it is decoded
        return []
    found = []
    if transparent and feature.channels in (1, 3):
        found.append(
            f"transparent pictures are blended with white, because the images of this run have {feature.channels} "
            f"channel{'s' if feature.channels > 1 else ''}"
        )
    if deep and feature.bits == 8:
        found.append("pictures with 16 bits per value are converted to 8 bits, the bits of the images of this run")
    return found


def holds_pictures(path: Path) -> bool:
    """Whether a path names pictures rather than arrays: a folder, a zip file of images, or a picture."""
    return path.suffix not in (".npz", ".npy")
