"""Image data sets of TensorFlow Datasets (TFDS). Prepared data are read without TensorFlow."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data import features
from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.images import SKIPPED, BadImage, fitted, sides
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Duplicates, OnError, Resolution

log = logging.getLogger(__name__)
_OWN = "tensorflow_datasets."


def tfds(
    *,
    name: str,
    version: str | None = None,
    split: str = "train",
    held_out: str | None = None,
    data_dir: str | None = None,
    resolution: Resolution | None = None,
    flip: bool = False,
    on_error: OnError = "refuse",
    stream: bool | None = None,
    duplicates: Duplicates = "warn",
) -> Dataset:
    """Image data set of TensorFlow Datasets (TFDS), such as ``cifar10`` or ``svhn_cropped``.

    The data set is read in the ``array_record`` format, which does not need TensorFlow. If the data set is not
    prepared yet and TensorFlow is installed (``pip install 'gan_cli[tfds]'``), the data set is downloaded and
    prepared first. The feature ``label`` contains the labels. Without this feature, the examples have no labels.

    Args:
        name: name of the data set in TFDS, for example ``cifar10``. A TFDS config is added after a slash, for
            example ``emnist/letters``.
        version: version of the data set. With null, the newest version is used.
        split: split in the notation of TFDS, for example ``train``, ``train[:80%]`` or ``train+test``.
        held_out: split whose images training does not use, and with which some metrics compare the samples or the
            training images, for example ``test``. With null, no images are held out.
        data_dir: folder of the prepared data sets. With null, the folder is the value of the environment variable
            ``TFDS_DATA_DIR``, or ``~/tensorflow_datasets`` if the variable is not set.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre. With null, the images keep
            their stored height and width, which must be equal for all images.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        on_error: treatment of images that cannot be decoded. With ``skip``, these images are left out. In streamed
            data, the next image that can be decoded replaces such an image. With ``refuse``, the command stops with
            an error.
        stream: whether images are decoded during training, batch by batch. If false, all images are decoded at the
            start. With null, images are decoded during training only if all decoded images take more than a quarter
            of the memory of the host or of the accelerator.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.

    Raises:
        UserError: the data set, the version or the split does not exist, the data set cannot be downloaded or read,
            the data set has no images that can be decoded, or, with ``on_error="refuse"``, an image cannot be
            decoded.
    """
    import tensorflow_datasets

    # The log level hides TFDS's advice to install packages that this module does not use.
    logging.getLogger("absl").setLevel(logging.ERROR)
    full = f"{name}:{version}" if version else name
    directory = str(files.expanded(data_dir)) if data_dir else None
    before, colon, after = name.partition(":")
    if colon and after[:1].isdigit():
        raise UserError(
            f"dataset.name={name}: the name must not include a version. "
            f"Set dataset.name={before} dataset.version={after}."
        )
    if colon:
        raise UserError(
            f"dataset.name={name}: the name must not include a namespace ({before}), because only TFDS's own data "
            "sets can be read. Choose a data set of TFDS, for example dataset.name=cifar10."
        )
    if directory:
        _check_features(Path(directory) / name.split("/")[0])
    builder = _builder(tensorflow_datasets, full, directory)
    if not builder.data_path.exists() or not builder.info.splits:
        _prepare(tensorflow_datasets, builder, full, data_dir)
    if str(builder.info.file_format.value) != "array_record":
        raise UserError(
            f"dataset.name={full}: the data set is prepared in the format {builder.info.file_format.value}, which "
            "can be read only with TensorFlow.\n"
            f"Prepare the data set again in the format array_record: {_recipe(full, data_dir)}"
        )
    image_key = next((k for k in ("image", "images") if k in builder.info.features), None)
    if image_key is None:
        raise UserError(
            f"dataset.name={full}: the data set has no images; its features are "
            f"{', '.join(builder.info.features)}. Choose an image data set, for example dataset.name=cifar10."
        )

    def read(option: str, wanted: str, stream: bool | None) -> Dataset:
        try:
            source = builder.as_data_source(split=wanted)
        except (KeyError, ValueError, AssertionError) as error:
            known = ", ".join(builder.info.splits) or "none"
            raise UserError(
                f"dataset.{option}={wanted}: the data set {full} has no such split. Choose one of the splits that "
                f"it has: {known}."
            ) from error
        return _dataset(source, full, wanted, image_key, builder.info, resolution, flip, on_error, stream)

    data = replace(read("split", split, stream), duplicates=duplicates)
    if held_out is None:
        return data
    return replace(data, held_out=read("held_out", held_out, stream=False).arrays)


def _builder(tensorflow_datasets: Any, full: str, directory: str | None) -> Any:
    registered = tensorflow_datasets.core.DatasetNotFoundError
    try:
        return tensorflow_datasets.builder(full, data_dir=directory)
    except registered as error:
        # The suggestion comes from the message of TFDS, for example "mnnist -> mnist", because listing the names of
        # all data sets needs TensorFlow.
        near = re.search(r"-> ([\w/]+)", str(error))
        hint = f" Did you mean '{near.group(1)}'?" if near else ""
        raise UserError(
            f"dataset.name={full}: TFDS has no such data set or version.{hint} "
            "Check dataset.name and dataset.version."
        ) from error
    except (AssertionError, ValueError, ImportError) as error:
        raise UserError(
            f"dataset.name={full}: TFDS cannot open the data set ({str(error).strip().splitlines()[0]}). "
            "Check dataset.name and dataset.version."
        ) from error


def _check_features(prepared: Path) -> None:
    """Raise a UserError if reading the prepared data would import modules that are not part of TFDS."""
    for path in prepared.glob("**/features.json"):
        try:
            found = files.read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: the file cannot be read ({error}). Prepare the data set again.") from error
        waiting = [found]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                waiting += node.values()
                named = str(node.get("pythonClassName", _OWN))
                if not named.startswith(_OWN):
                    raise UserError(
                        f"{path}: reading the data would import {named}, which is not part of TFDS. "
                        "Prepare the data set again."
                    )
            elif isinstance(node, list):
                waiting += node


def _recipe(full: str, data_dir: str | None) -> str:
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        "pip install 'gan_cli[tfds]', then\n"
        f"  python -c \"import tensorflow_datasets as t; t.builder({full!r}{where}, file_format='array_record')"
        '.download_and_prepare()"'
    )


def _prepare(tensorflow_datasets: Any, builder: Any, full: str, data_dir: str | None) -> None:
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    missing = (
        f"dataset.name={full}: the data set is not prepared in {folder}.\n"
        f"With a network connection, prepare the data set: {_recipe(full, data_dir)}\n"
        "Without a network connection, choose a data set that needs no download, for example dataset=mnist5k."
    )
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(missing)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # a download may raise any exception
        raise UserError(
            f"{missing}\nThe automatic download failed: {str(error).strip().splitlines()[0][:200]}"
        ) from error


def _dataset(
    source: Any,
    full: str,
    split: str,
    image_key: str,
    info: Any,
    resolution: Resolution | None,
    flip: bool,
    on_error: str,
    stream: bool | None,
) -> Dataset:
    shape = tuple(info.features[image_key].shape)
    if resolution is None and None in shape:
        raise UserError(
            f"dataset.resolution=null: the images of {full} differ in height or width. "
            "Set the height and width in pixels, for example dataset.resolution=32."
        )
    if len(source) == 0:
        raise UserError(
            f"dataset.split={split}: the split has no examples in {full}. "
            "Choose another split, for example dataset.split=train."
        )
    height, width = sides(resolution) if resolution else shape[:2]
    channels = shape[2] if shape[2] in (1, 3, 4) else 3
    label = info.features["label"] if "label" in info.features else None  # noqa: SIM401 - no mapping
    classes = getattr(label, "num_classes", None)
    names = tuple(map(str, getattr(label, "names", None) or ()))
    identity = (full, split, str(getattr(info, "version", "")))
    notes = (f"{len(source):,} examples, version {identity[2]}",)
    records = Records(source, full, image_key, (height, width, channels), on_error, identity)
    spec = spec_of(features.Image(*records.shape), classes)
    if must_stream(len(source) * height * width * channels, stream):
        return Dataset(f"{full} {split} (streamed)", spec, records, flip=flip, class_names=names, notes=notes)
    images, labels = np.empty((len(source), height, width, channels), np.uint8), np.empty(len(source), np.int32)
    n = 0
    for i in range(len(source)):
        try:
            example = records.read(i)
        except BadImage as error:
            log.warning(SKIPPED, f"example {i} of {full}", error)
            continue
        images[n], labels[n] = example["x"], example["label"]
        n += 1
    if n == 0:
        raise UserError(_none_decoded(full))
    skipped = len(source) - n
    return Dataset(
        f"{full} {split}",
        spec,
        {"x": images[:n]} | ({"label": labels[:n]} if classes is not None else {}),
        flip=flip,
        class_names=names,
        notes=notes,
        passed_over={"images that cannot be decoded": skipped} if skipped else {},
    )


def _none_decoded(full: str) -> str:
    return f"dataset.name={full}: none of the images can be decoded. Prepare the data set again."


class Records:
    """A ``Source`` of the images in a TFDS split, which decodes an image at each access."""

    labels = None  # a record stores the image and the label together, so only reading every record tells the labels

    def __init__(
        self,
        source: Any,
        name: str,
        image_key: str,
        shape: tuple[int, int, int],
        on_error: str,
        identity: tuple[str, ...],
    ):
        self._source, self._name, self._image_key, self._on_error = source, name, image_key, on_error
        self.shape, self._identity = shape, identity
        self._warned: set[int] = set()

    def __len__(self) -> int:
        return len(self._source)

    def read(self, i: int) -> dict[str, Any]:
        """The image of example ``i`` as uint8, and its label (-1 if the examples have no labels).

        Raises:
            UserError: the image cannot be decoded and ``on_error`` is ``refuse``.
            BadImage: the image cannot be decoded and ``on_error`` is ``skip``.
        """
        from PIL import Image

        try:
            record = self._source[i]
            image = record[self._image_key]
        except Exception as error:  # the decoder and the reader may raise any exception on damaged data
            if self._on_error == "refuse":
                raise UserError(
                    f"dataset.name={self._name}: the image of example {i} cannot be decoded ({error}).\n"
                    "Set dataset.on_error=skip to leave out images that cannot be decoded."
                ) from error
            raise BadImage(str(error)) from error
        if image.shape != self.shape or self.shape[2] == 4:
            image = fitted(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), self.shape)
        label = record.get("label", -1)
        return {"x": image, "label": int(label) if np.ndim(label) == 0 else -1}

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The image and the label of example ``i``.

        With ``on_error="skip"``, the next image that can be decoded, with its label, replaces an image that cannot
        be decoded.

        Raises:
            UserError: no image can be decoded, or ``on_error`` is ``"refuse"`` and image ``i`` cannot be decoded.
        """
        for j in range(i, i + len(self)):
            j %= len(self)
            try:
                return self.read(j)
            except BadImage as error:
                if j not in self._warned:
                    self._warned.add(j)
                    log.warning(SKIPPED, f"example {j} of {self._name}", error)
        raise UserError(_none_decoded(self._name))

    def fingerprint(self) -> str:
        """A digest of the data set's name, version, split, image shape and number of examples."""
        return hashlib.sha256(repr((*self._identity, self.shape, len(self))).encode()).hexdigest()
