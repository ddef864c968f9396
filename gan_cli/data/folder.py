"""Data set of the images in a folder or zip file. Images may differ in size, format and colour mode."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import math
import os
import threading
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_cli.data import features
from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.images import (
    FORMATS,
    SKIPPED,
    SUFFIXES,
    BadImage,
    Skipped,
    decode,
    decode_all,
    refusal,
    sides,
)
from gan_cli.data.layout import File, Listing, Reading, list_files, printable, read
from gan_cli.errors import UserError
from gan_cli.storage import files as storage
from gan_cli.types import Channels, Layout, OnError, Resolution

log = logging.getLogger(__name__)

# Maximum size of a file in bytes. Larger files count as damaged images, because a member of a malicious zip file
# can decompress to any size.
MAX_FILE = 256 * 2**20
_TOO_LARGE = f"the file is larger than {MAX_FILE // 2**20} MiB"

# The fingerprint of a streamed folder covers the contents of at most _SAMPLED files, three slices of each.
_SAMPLED, _SLICE = 20_000, 4096

_RENUMBERED = (
    "Versions without the option dataset.layout numbered or divided the sub-folders of this data set in another "
    "way. To resume a run of such a version, add dataset.layout=earlier."
)


def folder(
    *,
    path: str,
    resolution: Resolution = 32,
    channels: Channels = 3,
    flip: bool = False,
    on_error: OnError = "skip",
    layout: Layout | None = None,
    stream: bool | None = None,
) -> Dataset:
    """Images from a folder or zip file, with top-level sub-folders as classes.

    The images are sorted by their relative path, and the classes by name, with numbers in numerical order.
    Example: ``gan-train dataset=folder dataset.path=photos``.

    Args:
        path: folder or zip file with the images. Sub-folders are searched too.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre.
        channels: number of channels. 1 converts all images to greyscale, 3 converts all images to RGB, and 4 keeps
            the transparency of the images (RGBA). With 1 and 3, transparent images are blended with white.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        on_error: treatment of images that cannot be read or decoded, and of folders that cannot be read. With
            ``skip``, they are left out. In streamed data, the next image that can be decoded replaces such an
            image. With ``refuse``, the command stops with an error.
        layout: use of the sub-folders. With ``classes``, the top-level sub-folders are the classes, and images
            outside of them are left out. With ``flat``, the images have no labels. With ``splits``, the folder
            ``train`` contains the training images, and the folders ``test``, ``val``, ``valid`` and ``validation``
            contain held-out images. With ``earlier``, sub-folders are used as in versions without this option. With
            null, the layout is recognised, and an ambiguous layout is an error.
        stream: whether images are decoded during training, batch by batch. If false, all images are decoded at the
            start. With null, images are decoded during training only if all decoded images take more than a quarter
            of the memory of the host or of the accelerator.

    Raises:
        UserError: the path does not exist, is not a folder or zip file, contains no image that can be decoded, does
            not have the layout, or, with ``on_error="refuse"``, contains an image that cannot be decoded.
    """
    root = storage.expanded(path)
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip file. Check the path.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(
            f"dataset.path={path}: the file is not a zip file. Choose a folder or zip file of images, for example "
            "dataset.path=photos."
        )
    listing = list_files(root, on_error)
    reading = read(listing, layout, path)
    passed_over = listing.passed_over + reading.passed_over
    if not reading.training:
        others = "".join(f"; there are {count:,} {kind}" for kind, count in passed_over.most_common(3))
        raise UserError(
            f"dataset.path={path}: there are no images in the folder or zip file{others}. Choose a folder or zip "
            f"file with files of these types: {', '.join(SUFFIXES)}."
        )
    shape = (*sides(resolution), channels)
    images, held_out = reading.training, reading.held_out
    classes = tuple(reading.classes)
    notes = tuple(filter(None, (reading.note, _headers(root, images))))
    alike = _read_alike(listing, reading, path)
    if must_stream((len(images) + len(held_out)) * math.prod(shape), stream):
        files = Files(root, reading, shape, on_error)
        if held_out:
            passed_over["held-out images, because the data are streamed"] = len(held_out)
        return Dataset(
            name=f"{root.name} ({len(images)} images, streamed)",
            spec=spec_of(features.Image(*shape), len(classes) or None),
            examples=files,
            flip=flip,
            class_names=classes,
            passed_over=passed_over,
            notes=notes,
            earlier=(files.earlier_fingerprint(),) if alike else (),
            hint="" if alike else _RENUMBERED,
        )
    skipped = Skipped()
    decoded, labels = _decoded(root, images, reading.labels, shape, on_error, skipped)
    if not decoded:
        raise UserError(_none_decoded(path, len(images)))
    if layout == "earlier":
        labels, classes = _without_empty_classes(labels, classes)
    tests, test_labels = _decoded(root, held_out, reading.held_out_labels, shape, on_error, skipped)
    if skipped.count:
        passed_over["images that cannot be decoded"] = skipped.count
    return Dataset(
        name=f"{root.name} ({len(decoded)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=spec_of(features.Image(*shape), len(classes) or None),
        examples=_arrays(decoded, labels if classes else None),
        held_out=_arrays(tests, test_labels) if tests else None,
        flip=flip,
        class_names=classes,
        passed_over=passed_over,
        notes=notes,
        hint="" if alike and len(set(labels or ())) == len(classes) else _RENUMBERED,
    )


def _read_alike(listing: Listing, reading: Reading, path: str) -> bool:
    """Whether versions without ``dataset.layout`` read the same images with the same labels."""
    earlier = read(listing, "earlier", path)
    members, before = ([file.member for file in one.training] for one in (reading, earlier))
    return (members, reading.labels, reading.classes) == (before, earlier.labels, earlier.classes)


def _arrays(images: list[np.ndarray], labels: list[int] | None) -> dict[str, np.ndarray]:
    return {"x": np.stack(images)} | ({} if labels is None else {"label": np.array(labels, np.int32)})


def _decoded(
    root: Path,
    files: list[File],
    labels: list[int] | None,
    shape: tuple[int, int, int],
    on_error: str,
    skipped: Skipped,
) -> tuple[list[np.ndarray], list[int] | None]:
    """A pair of lists: the images that can be decoded, and their labels."""
    of = {} if labels is None else {file.name: label for file, label in zip(files, labels, strict=True)}
    pairs = list(decode_all(contents_of(root, files), shape[:2], shape[2], on_error, skipped))
    return [image for _, image in pairs], None if labels is None else [of[name] for name, _ in pairs]


def _without_empty_classes(labels: list[int] | None, classes: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Labels and classes as in versions without ``dataset.layout``, which counted decoded images only."""
    used = sorted(set(labels or ()))
    if len(used) < 2:
        return [-1] * len(labels or ()), ()
    kept = tuple(classes[i] for i in used)
    return [used.index(label) for label in labels or ()], kept


def _headers(root: Path, files: list[File]) -> str:
    """A description of the sizes and colour modes of the images, from the headers of at most 64 files."""
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(len(files), 64)).astype(int))]
    sizes, modes = [], set()
    for _, content in contents_of(root, chosen):
        if isinstance(content, bytes):
            with contextlib.suppress(Exception), Image.open(io.BytesIO(content), formats=FORMATS) as image:
                sizes.append(image.size)
                modes.add(image.mode)
    if not sizes:
        return ""
    low, high = (f"{width}x{height}" for width, height in (min(sizes, key=math.prod), max(sizes, key=math.prod)))
    extent = low if low == high else f"{low} to {high}"
    sample = "" if len(chosen) == len(files) else f" in {len(chosen)} of {len(files):,} images"
    return f"{extent} pixels, {', '.join(sorted(modes))}{sample}"


class Files:
    """A ``Source`` of the images in a folder or zip file, which decodes an image at each access."""

    def __init__(self, root: Path, reading: Reading, shape: tuple[int, int, int], on_error: str):
        self._root, self._files, self._labels, self._on_error = root, reading.training, reading.labels, on_error
        self.shape, self._classes = shape, reading.classes
        self.labels = np.array(reading.labels, np.int32) if reading.classes else None
        self._warned: set[int] = set()
        # Each thread opens the zip file separately, because an open file has only one read position.
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Image ``i`` as uint8, and its label.

        With ``on_error="skip"``, the next image that can be decoded, with its label, replaces an image that cannot
        be decoded.

        Raises:
            UserError: no image can be decoded, or ``on_error`` is ``"refuse"`` and image ``i`` cannot be decoded.
        """
        for j in range(i, i + len(self._files)):
            j %= len(self._files)
            try:
                image = decode(self._content(self._files[j]), self.shape[:2], self.shape[2])
                return {"x": image, "label": self._labels[j]}
            except BadImage as error:
                name = printable(self._files[j].name)
                if self._on_error == "refuse":
                    raise UserError(refusal(name, error)) from error
                if j not in self._warned:
                    self._warned.add(j)
                    log.warning(SKIPPED, name, error)
        raise UserError(_none_decoded(self._root, len(self._files)))

    def _content(self, file: File) -> bytes:
        if self._root.is_dir():
            return _read_file(self._root / file.member)
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self._root)
        return _read_member(self._local.archive, file.member)

    def fingerprint(self) -> str:
        """A digest of the image shape, the names, sizes and labels of all files, and a sample of their contents.

        For a folder, the sample consists of up to ``_SAMPLED`` evenly spaced files: the first, middle and last
        ``_SLICE`` bytes of each. For a zip file, the stored CRC checksums of all files are used instead.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        named = [(file.name, size) for file, size in zip(self._files, self._sizes, strict=True)]
        digest = hashlib.sha256(repr((self.shape, named, self._classes, self._labels)).encode())
        if self._root.is_dir():
            count = min(len(self._files), _SAMPLED)
            chosen = [self._root / self._files[i * len(self._files) // count].member for i in range(count)]
            with ThreadPoolExecutor(16) as readers:  # the time of small reads is mostly waiting
                for part in readers.map(_sample, chosen):
                    digest.update(part)
        return digest.hexdigest()

    def earlier_fingerprint(self) -> str:
        """The fingerprint that versions without ``dataset.layout`` computed from names and sizes or checksums."""
        named = [(file.member, size) for file, size in zip(self._files, self._sizes, strict=True)]
        return hashlib.sha256(repr((self.shape, named)).encode()).hexdigest()

    @functools.cached_property
    def _sizes(self) -> list[int]:
        """The size of each file in a folder, or the CRC checksum of each file in a zip file."""
        if self._root.is_dir():
            return [(self._root / file.member).stat().st_size for file in self._files]
        with zipfile.ZipFile(self._root) as archive:
            return [archive.getinfo(file.member).CRC for file in self._files]


def _sample(path: Path) -> bytes:
    """The SHA-256 digest of the first, middle and last ``_SLICE`` bytes of a file, or of a whole short file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 3 * _SLICE:
                return hashlib.sha256(file.read()).digest()
            digest = hashlib.sha256()
            for start in (0, (size - _SLICE) // 2, size - _SLICE):
                file.seek(start)
                digest.update(file.read(_SLICE))
            return digest.digest()
    except PermissionError:  # dataset.on_error decides when the image is decoded
        return b"unreadable"


def _none_decoded(path: str | Path, count: int) -> str:
    return (
        f"dataset.path={path}: none of the {count} image files can be decoded. Choose another folder or zip file."
    )


def contents_of(root: Path, files: Iterable[File]) -> Iterator[tuple[str, bytes | BadImage]]:
    """Yields ``(name, content)`` for each of the given files in a folder or zip file.

    In place of the content, the function yields a ``BadImage`` with the reason if the file may not be read, is
    larger than ``MAX_FILE``, or is a damaged member of a zip file.
    """
    with contextlib.nullcontext() if root.is_dir() else zipfile.ZipFile(root) as archive:
        for file in files:
            content: bytes | BadImage
            try:
                content = _read_member(archive, file.member) if archive else _read_file(root / file.member)
            except BadImage as error:
                content = error
            yield file.name, content


def _read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE:
            raise BadImage(_TOO_LARGE)
        return file.read_bytes()
    except PermissionError as error:
        raise BadImage(str(error.strerror)) from error


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE + 1)
    except Exception as error:  # a damaged, encrypted or unsupported member counts as a damaged image
        raise BadImage(f"damaged or encrypted in the zip file: {error}") from error
    if len(content) > MAX_FILE:
        raise BadImage(_TOO_LARGE)
    return content
