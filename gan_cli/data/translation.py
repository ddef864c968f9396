"""Reads the images of image translation, of one domain or in pairs, from the files that ``domains`` has divided."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Picture

from gan_cli.data.capacity import must_stream
from gan_cli.data.contents import contents_of
from gan_cli.data.dataset import Dataset
from gan_cli.data.dicom import header as dicom_header
from gan_cli.data.domains import DOMAINS, PAIR, Division, Entry, Rows
from gan_cli.data.features import Image, Label
from gan_cli.data.images import (
    FORMATS,
    SKIPPED,
    BadImage,
    decode,
    fitted_values,
    has_16_bits,
    is_dicom,
    refusal,
    sides,
    unit_values,
)
from gan_cli.data.layout import Reading
from gan_cli.data.streamed_folder import Files
from gan_cli.errors import UserError
from gan_cli.types import Bits, Channels, Feature, Resolution

log = logging.getLogger(__name__)
_HEADERS = 64  # number of files of a domain whose headers are read
_TURNED = 0x0112  # tag of the EXIF orientation, whose values 5 to 8 exchange height and width


class Header(NamedTuple):
    """The form in which an image file stores its image."""

    height: int
    width: int
    channels: int
    bits: Bits


class Pictures:
    """A ``Source`` of images, of one domain or in pairs, which decodes them at each access.

    Args:
        division: the folder or zip file.
        rows: the files of each example. If there are two images and one file, the file contains them side by side.
        images: the features of the images by name, which state the stored size.
        label: name of the labels.
        labels: the label of each example, int32 ``[n]``, or None.
        on_error: the value of ``dataset.on_error``.
        exact: whether images of other sizes than ``images`` are refused instead of being resized.
    """

    def __init__(
        self,
        division: Division,
        rows: Rows,
        images: Mapping[str, Image],
        label: str,
        labels: np.ndarray | None,
        on_error: str,
        exact: bool = False,
    ):
        self._rows, self.images, self.label, self.labels, self._on_error = rows, images, label, labels, on_error
        stored = [_stored(image) for image in images.values()]
        numbers = [-1] * len(rows) if labels is None else labels.tolist()
        self._columns = [
            Files(division.root, Reading([row[i].file for row in rows], numbers, []), stored[i], on_error)
            for i in range(len(rows[0]) if rows else 0)
        ]
        self._warned: set[int] = set()
        self._division, self._exact = division, exact

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int) -> dict[str, Any]:
        """The images of example ``i`` by name, uint8 or uint16, and its label.

        Raises:
            UserError: an image cannot be decoded and ``on_error`` is ``refuse``.
            BadImage: an image cannot be decoded and ``on_error`` is ``skip``.
        """
        names = self._names(i)
        found: dict[str, Any] = {}
        try:
            if len(names) == len(self.images):
                for column, (feature, image) in zip(self._columns, self.images.items(), strict=True):
                    whole = _stored(image)
                    size = whole.height, whole.width
                    content = column.content(i)
                    if self._exact:
                        _check_size(decode(content, None, whole.channels, whole.bits), image)
                    found[feature] = decode(content, size, whole.channels, whole.bits)
            else:
                found = _halves(self._columns[0].content(i), self.images, self._exact)
        except BadImage as error:
            name = names[len(found)]  # the images before this one are decoded
            if self._on_error == "refuse":
                raise UserError(refusal(name, error)) from error
            if i not in self._warned:
                self._warned.add(i)
                log.warning(SKIPPED, name, error)
            raise
        return found if self.labels is None else found | {self.label: self.labels[i]}

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The images and the label of example ``i``.

        With ``on_error="skip"``, the next example that can be decoded replaces an example that cannot be decoded.

        Raises:
            UserError: no example can be decoded, or ``on_error`` is ``"refuse"`` and an image cannot be decoded.
        """
        for j in range(i, i + len(self)):
            try:
                return self.read(j % len(self))
            except BadImage:
                continue
        raise UserError(self.none_decoded())

    def _names(self, i: int) -> list[str]:
        """The names of the files of example ``i`` in messages."""
        return [self._division.shown(entry.file) for entry in self._rows[i]]

    def none_decoded(self) -> str:
        """The message for examples of which none can be decoded."""
        first = self._names(0)[0]
        return f"dataset.path: none of the {len(self):,} examples like {first} can be decoded. Choose other images."

    def decoded(self) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
        """All examples that can be decoded: arrays by name, and the names of the files of each image."""

        def read(i: int) -> dict[str, Any] | None:
            try:
                return self.read(i)
            except BadImage:
                return None

        with ThreadPoolExecutor(os.cpu_count()) as readers:
            every = list(readers.map(read, range(len(self))))
        found = [example for example in every if example is not None]
        if not found:
            raise UserError(self.none_decoded())
        rows = [row for row, example in zip(self._rows, every, strict=True) if example is not None]
        names = {name: tuple(row[min(i, len(row) - 1)].key for row in rows) for i, name in enumerate(self.images)}
        return {name: np.stack([example[name] for example in found]) for name in found[0]}, names

    @property
    def size(self) -> int:
        """Number of bytes of all decoded images."""
        return len(self) * sum(math.prod(one.stored_shape) * one.bits // 8 for one in self.images.values())

    def fingerprint(self) -> str:
        """A digest of the features, the labels, and the names, sizes and a sample of the contents of all files."""
        stated = [self.label, *((name, repr(image)) for name, image in self.images.items())]
        columns = [column.fingerprint() for column in self._columns]
        return hashlib.sha256(repr((stated, columns)).encode()).hexdigest()


def _check_size(found: np.ndarray, image: Image) -> None:
    """Raise a BadImage if an image has another height or width than its feature."""
    height, width = found.shape[:2]
    if (height, width) != (image.height, image.width):
        raise BadImage(
            f"it has {width}x{height} pixels, and other images {image.width}x{image.height}; for images of "
            "different sizes, set dataset.resolution"
        )


def _halves(content: bytes, images: Mapping[str, Image], exact: bool) -> dict[str, np.ndarray]:
    """The left and the right half of the picture in a file, each in the stored size of its feature.

    Raises:
        BadImage: the file cannot be decoded.
    """
    found = {}
    for i, (name, image) in enumerate(images.items()):
        whole = _stored(image)
        shape = whole.height, whole.width, whole.channels
        both = decode(content, None, whole.channels, whole.bits)
        half = both.shape[1] // 2
        if half == 0:
            raise BadImage("an image of one column cannot contain two pictures side by side")
        part = both[:, both.shape[1] - half :] if i else both[:, :half]
        if exact:
            _check_size(part, image)
        found[name] = part if part.shape == shape else fitted_values(unit_values(part), shape, whole.bits)
    return found


def _stored(image: Image) -> Image:
    """The feature of stored images with their margins."""
    height, width = image.load or (image.height, image.width)
    return replace(image, height=height, width=width, load=None)


def check_load(load: Resolution | None, height: int, width: int) -> None:
    """Raise a UserError if ``dataset.load`` is smaller than the crops that training cuts from the images."""
    if load is not None and (sides(load)[0] < height or sides(load)[1] < width):
        raise UserError(
            f"dataset.load={list(sides(load))}: must be at least as large as the crops, which are {height}x{width} "
            "(height x width). Set a smaller dataset.resolution, or a larger dataset.load."
        )


def features_of(
    division: Division,
    names: Sequence[str],
    path: str,
    channels: Sequence[Channels | None],
    bits: Bits | None,
    resolution: Resolution | None,
    load: Resolution | None,
) -> tuple[dict[str, Image], list[str]]:
    """The features ``a`` and ``b``, and a sentence about the files of each domain.

    Options that are None have the values of the files. At most 64 files of each domain are opened.

    Args:
        division: the images.
        names: the names of the domains.
        path: the value of ``dataset.path``.
        channels: the numbers of channels of the two domains.
        bits: the value of ``dataset.bits``.
        resolution: the value of ``dataset.resolution``.
        load: the value of ``dataset.load``.

    Raises:
        UserError: no file can be opened, ``resolution`` is None and the images differ in size, or ``load`` is
            smaller than the resolution.
    """
    entries = division.training
    found = {domain: _headers(division, of_domain) for domain, of_domain in entries.items()}
    for domain, headers in found.items():
        if not headers:
            raise UserError(
                f"dataset.path={path}: none of the {len(entries[domain]):,} images like "
                f"{division.shown(entries[domain][0].file)} can be decoded. Choose other images."
            )
    if PAIR in found:
        halves = [(name, header._replace(width=header.width // 2)) for name, header in found[PAIR]]
        found = dict.fromkeys(DOMAINS, halves)
    sizes = {(header.height, header.width): name for headers in found.values() for name, header in headers}
    if resolution is None and len(sizes) > 1:
        shown = " and ".join(f"{width}x{height} ({name})" for (height, width), name in list(sizes.items())[:2])
        raise UserError(
            f"dataset.resolution=null: the images in {path} differ in size, e.g. {shown}. Set the side or the "
            "height and width in pixels, e.g. dataset.resolution=256."
        )
    height, width = next(iter(sizes)) if resolution is None else sides(resolution)
    stored = None if load is None else sides(load)
    check_load(load, height, width)
    images, notes = {}, []
    for i, domain in enumerate(DOMAINS):
        forms = [header for _, header in found[domain]]
        of_files = max(form.channels for form in forms), max(form.bits for form in forms)
        kept = channels[i] or of_files[0], bits or of_files[1]
        images[domain] = Image(height, width, *kept, None if stored == (height, width) else stored)
        count = len(entries.get(domain, entries.get(PAIR, ())))
        notes.append(f"{names[i]}: {_described(forms, count)}")
    return images, notes


def _headers(division: Division, entries: Sequence[Entry]) -> list[tuple[str, Header]]:
    """The names and the headers of at most 64 evenly spaced files, without files that cannot be opened."""
    chosen = np.unique(np.linspace(0, len(entries) - 1, min(len(entries), _HEADERS)).astype(int))
    files = [entries[i].file for i in chosen]
    contents = zip(files, contents_of(division.root, files), strict=True)
    opened = [
        (division.shown(file), _header(content)) for file, (_, content) in contents if isinstance(content, bytes)
    ]
    return [(name, header) for name, header in opened if header is not None]


def _header(content: bytes) -> Header | None:
    """The form of an image file. None if it cannot be opened."""
    try:
        if content.startswith(np.lib.format.MAGIC_PREFIX):
            values = np.load(io.BytesIO(content), allow_pickle=False)
            height, width, *others = values.shape
            return Header(height, width, math.prod(others), 8 if values.dtype in (bool, np.uint8) else 16)
        if is_dicom(content):
            scan = dicom_header(io.BytesIO(content))
            return scan and Header(scan.height, scan.width, scan.channels, 8 if scan.channels == 3 else 16)
        with Picture.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size[::-1] if image.getexif().get(_TURNED, 1) > 4 else image.size
            deep = image.mode.startswith(("I", "F")) or has_16_bits(image)
            bands = len(image.getbands()) * (getattr(image, "n_frames", 1) if image.format == "TIFF" else 1)
            grey = image.mode in ("1", "L") or image.mode.startswith(("I", "F"))
            colours = 4 if image.has_transparency_data else 1 if grey else 3
            # The bands of several pages are the channels of an image without colours.
            channels = bands if bands > 4 or (bands == 2 and grey) else colours
            return Header(height, width, channels, 16 if deep else 8)
    except Exception:  # a decoder may raise any exception on a damaged file
        return None


def _described(headers: Sequence[Header], count: int) -> str:
    by_area = sorted({(header.width, header.height) for header in headers}, key=math.prod)
    extent = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((by_area[0], by_area[-1])))
    forms = sorted({f"{one.channels} channel{'s' * (one.channels > 1)} of {one.bits} bits" for one in headers})
    sample = "" if len(headers) == count else f" in {len(headers)} of {count:,} images"
    return f"{extent} pixels, {' or '.join(forms)}{sample}"


def assembled(
    name: str,
    training: Mapping[str, Pictures],
    held_out: Mapping[str, Pictures],
    classes: Sequence[str],
    stream: bool | None,
    passed_over: Counter[str],
    **others: Any,
) -> Dataset:
    """The data set of the images, which are decoded at the start or streamed.

    Args:
        name: name of the data set.
        training: the training images by domain. Pairs form a single domain.
        held_out: the held-out images by domain.
        classes: the names of the classes.
        stream: the value of ``dataset.stream``.
        passed_over: counter of the files that are left out, which the function completes.
        others: further attributes of the data set.
    """
    spec: dict[str, Feature] = {n: image for pictures in training.values() for n, image in pictures.images.items()}
    domain_of: dict[str, str] = {}
    for domain, pictures in training.items():
        spec |= {pictures.label: Label(len(classes))} if classes else {}
        names = (*pictures.images, *((pictures.label,) if classes else ()))
        domain_of |= dict.fromkeys(names, domain) if len(training) > 1 else {}
    streams = must_stream(sum(pictures.size for pictures in (*training.values(), *held_out.values())), stream)
    tests = [pictures for pictures in held_out.values() if len(pictures)]
    if streams and tests and must_stream(sum(pictures.size for pictures in tests), None):
        passed_over["held-out images, because they do not fit into the memory"] = sum(map(len, tests))
        tests = []
    of_tests, names_of_tests = _together(tests, passed_over)
    examples = training if streams else _together(list(training.values()), passed_over)[0]
    return Dataset(
        f"{name} (streamed)" if streams else name,
        spec,
        examples,
        of_tests or None,
        class_names=tuple(classes),
        domain_of=domain_of,
        passed_over=passed_over,
        held_out_names=names_of_tests,
        **others,
    )


def _together(
    parts: Sequence[Pictures], passed_over: Counter[str]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """The arrays and the names of all parts. Examples that cannot be decoded are counted in ``passed_over``."""
    found: dict[str, np.ndarray] = {}
    names: dict[str, tuple[str, ...]] = {}
    for pictures in parts:
        arrays, of_part = pictures.decoded()
        if missing := len(pictures) - len(next(iter(arrays.values()))):
            noun = "pairs" if len(pictures.images) > 1 else "images"
            passed_over[f"{noun} that cannot be decoded"] += missing
        found, names = found | arrays, names | of_part
    return found, names
