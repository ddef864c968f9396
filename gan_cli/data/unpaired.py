"""Data set of images of two domains that form no pairs, for unpaired image translation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from gan_cli.data import tfds, translation
from gan_cli.data.dataset import Dataset, Renamed, Source
from gan_cli.data.domains import DOMAINS, Entries, Rows, class_folders, class_names, divide, divided, labels_of
from gan_cli.data.features import Image
from gan_cli.data.images import sides
from gan_cli.data.translation import Pictures, check_load
from gan_cli.errors import UserError
from gan_cli.types import Bits, Channels, Duplicates, Feature, OnError, Resolution, Share

_TFDS = "tfds:"
_SHARE, _NAMES = 0.1, ("A", "B")  # defaults of hold_out and domains


def unpaired(
    *,
    path: str,
    resolution: Resolution | None = None,
    load: Resolution | None = None,
    channels: Channels | None = None,
    channels_a: Channels | None = None,
    channels_b: Channels | None = None,
    bits: Bits | None = None,
    flip: bool = False,
    on_error: OnError = "skip",
    hold_out: Share = _SHARE,
    domains: tuple[str, str] = _NAMES,
    labelled: bool | None = None,
    stream: bool | None = None,
    duplicates: Duplicates = "warn",
) -> Dataset:
    """Images of two domains ``a`` and ``b`` from a folder, a zip file or TFDS, for unpaired image translation.

    The images of the domains are in the folders ``trainA`` and ``trainB`` (or ``train/A`` and ``train/B``,
    ``A/train`` and ``B/train``, ``A`` and ``B``). ``test`` instead of ``train`` contains the held-out images, or
    ``val`` if there is no ``test``. A path such as ``tfds:cycle_gan/horse2zebra`` names a data set of TensorFlow
    Datasets with the splits trainA, trainB, testA and testB.

    Args:
        path: folder or zip file with the images, or ``tfds:`` and the name of a data set of TFDS.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre. With null, the images keep
            the size of the files, which must then be equal for all images.
        load: size of the training images, as for ``resolution``. Training cuts a random crop of ``resolution``
            from each. With null, training images are not cropped.
        channels: number of channels of all images: 1 for grey, 3 for RGB, 4 for RGBA, or another number, for TIFF
            and .npy files. With null, the channels of the files.
        channels_a: number of channels of the images ``a``. With null, the value of ``channels``.
        channels_b: number of channels of the images ``b``. With null, the value of ``channels``.
        bits: bits per value, 8 or 16. With null, 16 if the files of the domain have 16 bits.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch
            and domain.
        on_error: treatment of images that cannot be decoded. With ``skip``, they are left out. In streamed data,
            the next image that can be decoded replaces such an image. With ``refuse``, the command stops with an
            error.
        hold_out: share of the images of each domain that is held out if no folders hold out images. Of DICOM files,
            the share of the patients, all of whose images are held out.
        domains: names of the folders of ``a`` and ``b``, in upper or lower case, e.g. ``[photos,paintings]``.
        labelled: whether the folders inside the folders of the domains are classes, which must be the same in both
            domains. With null, folders are classes if each domain has at least two, and contain every image.
        stream: whether images are decoded during training, batch by batch. If false, all images are decoded at the
            start. With null, images are decoded during training only if all decoded images take more than a quarter
            of the memory of the host or of the accelerator.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.

    Raises:
        UserError: the files do not have one of the layouts, a domain has no images, the domains have different
            classes, or, with ``on_error="refuse"``, an image cannot be decoded.
    """
    if path.startswith(_TFDS):
        _check_options_of_tfds(
            channels=(channels, None), channels_a=(channels_a, None), channels_b=(channels_b, None),
            bits=(bits, None), hold_out=(hold_out, _SHARE), domains=(tuple(domains), _NAMES),
            labelled=(labelled, None),
        )  # fmt: skip
        data = _of_tfds(path.removeprefix(_TFDS), resolution, load, on_error, stream)
        return replace(data, flip=flip, duplicates=duplicates)
    division = divide(path, domains, on_error, pairs=False)
    images, notes = translation.features_of(
        division, domains, path,
        (channels_a or channels, channels_b or channels), bits, resolution, load,
    )  # fmt: skip
    classes = class_folders(division, domains, labelled, path)

    def pictures(domain: str, rows: Rows, load: bool) -> Pictures:
        image = images[domain] if load else replace(images[domain], load=None)
        labels = labels_of([entry for (entry,) in rows], classes)
        return Pictures(division, rows, {domain: image}, f"label_{domain}", labels, on_error, resolution is None)

    def rows_of(entries: Entries) -> Mapping[str, Rows]:
        return {domain: [(entry,) for entry in of_domain] for domain, of_domain in entries.items()}

    training, tests = rows_of(division.training), rows_of(division.held_out or {})
    if division.held_out is None:
        training, tests = divided(division, training, hold_out)
    return translation.assembled(
        division.root.name,
        {domain: pictures(domain, training[domain], load=True) for domain in DOMAINS},
        {domain: pictures(domain, tests[domain], load=False) for domain in DOMAINS if domain in tests},
        class_names(division, classes),
        stream,
        division.passed_over,
        flip=flip,
        notes=(division.note, *notes),
        duplicates=duplicates,
    )


def _check_options_of_tfds(**values: tuple[object, object]) -> None:
    """Raise a UserError unless each option, a pair of its value and its default, has its default."""
    for option, (value, default) in values.items():
        if value != default:
            shown = f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value).lower()
            raise UserError(
                f"dataset.{option}={shown}: an option of files. "
                "The images of TFDS keep their channels and bits, and the splits of TFDS divide them. Leave out "
                f"dataset.{option}."
            )


def _of_tfds(
    name: str, resolution: Resolution | None, load: Resolution | None, on_error: OnError, stream: bool | None
) -> Dataset:
    """The data set of TFDS with the given name, whose splits are trainA, trainB, testA and testB."""
    before, _, version = name.rpartition(":")
    full, number = (before, version) if before and version[:1].isdigit() else (name, None)

    def read(split: str, size: Resolution | None, stream: bool | None) -> Dataset:
        try:
            return tfds.tfds(
                name=full, version=number, split=split, resolution=size, on_error=on_error, stream=stream
            )
        except UserError as error:
            message = str(error).replace("dataset.name=", f"dataset.path={_TFDS}", 1)
            message = message.replace("Check dataset.name and dataset.version.", "Check dataset.path.")
            if message.startswith("dataset.split="):
                message = (
                    f"dataset.path={_TFDS}{name}: the data set has no split {split}. Choose a data set with the "
                    "splits trainA, trainB, testA and testB, e.g. dataset.path=tfds:cycle_gan/horse2zebra."
                )
            raise UserError(message) from error

    if resolution is not None:
        check_load(load, *sides(resolution))
    parts = {domain: read(f"train{domain.upper()}", load or resolution, stream) for domain in DOMAINS}
    if any(part.streams for part in parts.values()):
        parts = {domain: read(f"train{domain.upper()}", load or resolution, True) for domain in DOMAINS}
    tests = {domain: read(f"test{domain.upper()}", resolution, False) for domain in DOMAINS}
    spec: dict[str, Feature] = {}
    for domain in DOMAINS:
        stored, wanted = cast(Image, parts[domain].feature), cast(Image, tests[domain].feature)
        check_load(load, wanted.height, wanted.width)
        margins = stored.shape != wanted.shape
        spec[domain] = replace(wanted, load=(stored.height, stored.width) if margins else None)
    examples: Mapping[str, Source] | Mapping[str, np.ndarray]
    if parts["a"].streams:
        examples = {domain: Renamed(part.sources[""], {domain: "x"}) for domain, part in parts.items()}
    else:
        examples = {domain: part.arrays["x"] for domain, part in parts.items()}
    return Dataset(
        f"{full}{' (streamed)' if parts['a'].streams else ''}",
        spec,
        examples,
        {domain: tests[domain].arrays["x"] for domain in DOMAINS},
        passed_over=Counter(parts["a"].passed_over) + Counter(parts["b"].passed_over),
        notes=parts["a"].notes,
        domain_of={domain: domain for domain in DOMAINS},
    )
