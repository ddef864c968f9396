"""Image data sets that TensorFlow Datasets knows, read without TensorFlow once they are prepared."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.images import Skipped
from gan_cli.data.source import Dataset, check_memory
from gan_cli.errors import UserError
from gan_cli.types import OnError, PositiveInt, Spec


def tfds(
    *,
    name: str,
    version: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
    resolution: PositiveInt | None = None,
    flip: bool = False,
    on_error: OnError = "refuse",
) -> Dataset:
    """A split of a TFDS image data set, in TFDS's ``array_record`` format.

    A data set that is not prepared yet is downloaded and prepared, where TensorFlow is installed.

    Args:
        name: its name in TFDS, with its config if it has one: ``"cifar10"``, ``"emnist/letters"``.
        version: which version; None is the newest.
        split: in TFDS's notation: ``"train"``, ``"train[:80%]"``, ``"train+test"``.
        data_dir: where it is prepared; None is TFDS's own place.
        resolution: side to resize and crop to; None keeps images as they are.

    Raises:
        UserError: it cannot be had, has no such split, or holds no images.
    """
    import tensorflow_datasets

    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS recommends packages that are not needed here
    full = f"{name}:{version}" if version else name
    directory = str(Path(data_dir).expanduser()) if data_dir else None
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
    return _dataset(source, full, split, image_key, builder.info, resolution, flip, on_error)


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
) -> Dataset:
    from PIL import Image, ImageOps

    shape = tuple(info.features[image_key].shape)
    if resolution is None and None in shape:
        raise UserError(
            f"dataset.resolution: {full} has images of many sizes: choose one, e.g. dataset.resolution=32"
        )
    height, width = (resolution, resolution) if resolution else shape[:2]
    channels = shape[2] if shape[2] in (1, 3) else 3
    check_memory(len(source) * height * width * channels, "dataset.split or dataset.resolution")
    images, labels = np.empty((len(source), height, width, channels), np.uint8), []
    skipped, n = Skipped(), 0
    for i in range(len(source)):
        try:
            record = source[i]
            image = record[image_key]
        except Exception as error:  # a decoder's or a reader's own
            if on_error == "refuse":
                raise UserError(f"{full}, example {i}: {error}\ndataset.on_error=skip leaves it out.") from error
            skipped.count += 1
            continue
        if image.shape[:2] != (height, width):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            image = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
        images[n] = image.reshape(height, width, channels)
        labels.append(record.get("label", -1))
        n += 1
    if n == 0:
        raise UserError(f"dataset.split={split}: {full} has no examples in it.")
    known = "label" in info.features and hasattr(info.features["label"], "num_classes")
    return Dataset(
        name=f"{full} {split}",
        spec=Spec((height, width, channels), -1.0, 1.0, info.features["label"].num_classes if known else None),
        examples=images[:n],
        labels=np.array(labels, np.int32) if known else None,
        flip=flip,
    )
