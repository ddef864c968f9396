"""Image data sets that TensorFlow Datasets knows, read without TensorFlow once they are prepared."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.images import BadImage
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import OnError, PositiveInt, Spec

_OWN = "tensorflow_datasets."


def tfds(
    *,
    name: str,
    version: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
    resolution: PositiveInt | None = None,
    flip: bool = False,
    on_error: OnError = "refuse",
    stream: bool | None = None,
) -> Dataset:
    """A split of a TFDS image data set, in TFDS's ``array_record`` format.

    A data set that is not prepared yet is downloaded and prepared, where TensorFlow is installed.

    Args:
        name: its name in TFDS, with its config if it has one: ``"cifar10"``, ``"emnist/letters"``.
        version: which version; None is the newest.
        split: in TFDS's notation: ``"train"``, ``"train[:80%]"``, ``"train+test"``.
        data_dir: where it is prepared; None is TFDS's own place.
        resolution: side to resize and crop to; None keeps images as they are.
        stream: whether images are read each time a batch needs them instead of all at the start; None streams
            where they would take more than a quarter of the memory.

    Raises:
        UserError: it cannot be had, has no such split, or holds no images.
    """
    import tensorflow_datasets

    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS recommends packages that are not needed here
    full = f"{name}:{version}" if version else name
    directory = str(Path(data_dir).expanduser()) if data_dir else None
    if ":" in name:
        raise UserError(f"dataset.name={name}: must be one of TFDS's own; its version is dataset.version.")
    if directory:
        _check_features(Path(directory) / name.split("/")[0])
    builder = _builder(tensorflow_datasets, full, directory)
    if not builder.data_path.exists() or not builder.info.splits:
        _prepare(tensorflow_datasets, builder, full, data_dir)
    if str(builder.info.file_format.value) != "array_record":
        raise UserError(
            f"dataset.name={full}: is prepared as {builder.info.file_format.value}, which only TensorFlow reads.\n"
            f"Prepare it again as array_record: {_recipe(full, data_dir)}"
        )
    image_key = next((k for k in ("image", "images") if k in builder.info.features), None)
    if image_key is None:
        raise UserError(f"dataset.name={full}: has no images; its features are {', '.join(builder.info.features)}.")
    try:
        source = builder.as_data_source(split=split)
    except (KeyError, ValueError, AssertionError) as error:
        known = ", ".join(builder.info.splits) or "none"
        raise UserError(f"dataset.split={split}: not a split of {full}, which has {known}.") from error
    return _dataset(source, full, split, image_key, builder.info, resolution, flip, on_error, stream)


def _builder(tensorflow_datasets: Any, full: str, directory: str | None) -> Any:
    registered = tensorflow_datasets.core.DatasetNotFoundError
    try:
        return tensorflow_datasets.builder(full, data_dir=directory)
    except registered as error:
        # TFDS's list of names needs TensorFlow; its own message says "mnnist -> mnist".
        near = re.search(r"-> ([\w/]+)", str(error))
        hint = f" Did you mean '{near.group(1)}'?" if near else ""
        raise UserError(f"dataset.name={full}: TFDS has no such data set or version.{hint}") from error
    except (AssertionError, ValueError, ImportError) as error:
        raise UserError(f"dataset.name={full}: {str(error).strip().splitlines()[0]}") from error


def _check_features(prepared: Path) -> None:
    """Refuse prepared data that would have TFDS import other modules than its own to read them."""
    for path in prepared.glob("**/features.json"):
        try:
            found = files.read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}).") from error
        waiting = [found]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                waiting += node.values()
                named = str(node.get("pythonClassName", _OWN))
                if not named.startswith(_OWN):
                    raise UserError(f"{path}: would import {named}: refused.")
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
    missing = (
        f"dataset.name={full}: is not prepared in {data_dir or '~/tensorflow_datasets'}.\n"
        f"With a network: {_recipe(full, data_dir)}\n"
        "Without one: dataset=mnist5k, ring, grid and folder need no download."
    )
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(missing)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # a download fails in as many ways as there are hosts
        raise UserError(f"{missing}\nThe attempt failed: {str(error).strip().splitlines()[0][:200]}") from error


def _dataset(
    source: Any,
    full: str,
    split: str,
    image_key: str,
    info: Any,
    resolution: int | None,
    flip: bool,
    on_error: str,
    stream: bool | None,
) -> Dataset:
    shape = tuple(info.features[image_key].shape)
    if resolution is None and None in shape:
        raise UserError(
            f"dataset.resolution: {full} has images of many sizes: choose one, e.g. dataset.resolution=32"
        )
    if len(source) == 0:
        raise UserError(f"dataset.split={split}: {full} has no examples in it.")
    height, width = (resolution, resolution) if resolution else shape[:2]
    channels = shape[2] if shape[2] in (1, 3) else 3
    label = info.features["label"] if "label" in info.features else None  # noqa: SIM401 - no mapping
    classes = getattr(label, "num_classes", None)
    identity = (full, split, str(getattr(info, "version", "")))
    records = Records(source, full, image_key, (height, width, channels), classes is not None, on_error, identity)
    spec = Spec(records.shape, -1.0, 1.0, classes)
    if must_stream(len(source) * height * width * channels, stream):
        return Dataset(f"{full} {split} (streamed)", spec, records, flip=flip)
    images, labels = np.empty((len(source), height, width, channels), np.uint8), np.empty(len(source), np.int32)
    n = 0
    for i in range(len(source)):
        try:
            images[n], labels[n] = records.read(i)
        except BadImage:
            continue
        n += 1
    if n == 0:
        raise UserError(f"dataset.split={split}: {full} has no examples that can be read.")
    return Dataset(f"{full} {split}", spec, images[:n], labels[:n] if records.labelled else None, flip=flip)


class Records:
    """The images of a TFDS split as a source: each is read when it is asked for."""

    def __init__(
        self,
        source: Any,
        name: str,
        image_key: str,
        shape: tuple[int, int, int],
        labelled: bool,
        on_error: str,
        identity: tuple[str, ...],
    ):
        self._source, self._name, self._image_key, self._on_error = source, name, image_key, on_error
        self.shape, self.labelled, self._identity = shape, labelled, identity

    def __len__(self) -> int:
        return len(self._source)

    def read(self, i: int) -> tuple[np.ndarray, int]:
        """Example ``i``.

        Raises:
            UserError: it cannot be read, and ``on_error=refuse``.
            BadImage: it cannot be read, and ``on_error=skip``.
        """
        from PIL import Image, ImageOps

        try:
            record = self._source[i]
            image = record[self._image_key]
        except Exception as error:  # a decoder's or a reader's own
            if self._on_error == "refuse":
                raise UserError(
                    f"{self._name}, example {i}: {error}\ndataset.on_error=skip leaves it out."
                ) from error
            raise BadImage(str(error)) from error
        height, width, _ = self.shape
        if image.shape[:2] != (height, width):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            image = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
        return image.reshape(self.shape), int(record.get("label", -1)) if self.labelled else -1

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Example ``i``; under ``on_error=skip``, the next one that can be read stands in for one that cannot."""
        for j in range(i, i + len(self)):
            try:
                return self.read(j % len(self))
            except BadImage:
                continue
        raise UserError(f"{self._name}: has no examples that can be read.")

    def fingerprint(self) -> str:
        """Of the data set's name, version and split, and the number of examples in it."""
        return hashlib.sha256(repr((*self._identity, self.shape, len(self))).encode()).hexdigest()
