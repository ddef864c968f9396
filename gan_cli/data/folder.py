"""Data set of the images in a folder or zip file. Images may differ in size, format and colour mode."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.images import (
    SKIPPED,
    SUFFIXES,
    UNREAD,
    BadImage,
    Skipped,
    decode,
    decode_all,
    refusal,
    sides,
    warn_of_unread,
)
from gan_cli.errors import UserError
from gan_cli.types import Channels, OnError, Resolution, Spec

log = logging.getLogger(__name__)

# Maximum size of a file in bytes. Larger files count as damaged images, because a member of a malicious zip file
# can decompress to any size.
MAX_FILE = 256 * 2**20


def folder(
    *,
    path: str,
    resolution: Resolution = 32,
    channels: Channels = 3,
    flip: bool = False,
    on_error: OnError = "skip",
    stream: bool | None = None,
) -> Dataset:
    """Images from a folder or zip file, with top-level sub-folders as classes.

    The images are sorted by their relative path. The top-level sub-folders are the classes if every image is in a
    sub-folder and there are at least two top-level sub-folders. Otherwise, the images have no labels.
    Example: ``gan-train dataset=folder dataset.path=photos``.

    Args:
        path: folder or zip file with the images. Sub-folders are searched too.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre.
        channels: number of channels. 1 converts all images to greyscale, 3 converts all images to RGB, and 4 keeps
            the transparency of the images (RGBA). With 1 and 3, transparent images are blended with white.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        on_error: treatment of images that cannot be decoded. With ``skip``, these images are left out. In streamed
            data, the next image that can be decoded replaces such an image. With ``refuse``, the command stops with
            an error.
        stream: whether images are decoded during training, batch by batch. If false, all images are decoded at the
            start. With null, images are decoded during training only if all decoded images take more than a quarter
            of the memory of the host or of the accelerator.

    Raises:
        UserError: the path does not exist, is not a folder or zip file, contains no image that can be decoded, or,
            with ``on_error="refuse"``, contains an image that cannot be decoded.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip file. Check the path.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(
            f"dataset.path={path}: the file is not a zip file. Choose a folder or zip file of images, for example "
            "dataset.path=photos."
        )
    names = files_in(root)
    warn_of_unread(files_in(root, tuple(UNREAD)))
    if not names:
        raise UserError(
            f"dataset.path={path}: there are no images in the folder or zip file. Choose a folder or zip file with "
            f"files of these types: {', '.join(SUFFIXES)}."
        )
    shape = (*sides(resolution), channels)
    if must_stream(len(names) * math.prod(shape), stream):
        files = Files(root, names, shape, on_error)
        spec = Spec(files.shape, -1.0, 1.0, len(files.classes) or None)
        return Dataset(f"{root.name} ({len(names)} images, streamed)", spec, files, flip=flip)
    skipped = Skipped()
    pairs = list(decode_all(contents_of(root, names), resolution, channels, on_error, skipped))
    if not pairs:
        raise UserError(_none_decoded(path, len(names)))
    classes, labels = _classes([name for name, _ in pairs])
    return Dataset(
        name=f"{root.name} ({len(pairs)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=Spec(shape, -1.0, 1.0, len(classes) or None),
        examples=np.stack([image for _, image in pairs]),
        labels=np.array(labels, np.int32) if classes else None,
        flip=flip,
    )


class Files:
    """A ``Source`` of the images in a folder or zip file, which decodes an image at each access."""

    def __init__(self, root: Path, names: list[str], shape: tuple[int, int, int], on_error: str):
        self._root, self._names, self._on_error = root, names, on_error
        self.shape = shape
        self.classes, self._labels = _classes(names)
        self.labelled = bool(self.classes)
        self._warned: set[int] = set()
        # Each thread opens the zip file separately, because an open file has only one read position.
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """A pair: image ``i`` as uint8, and the label of the image (-1 if the images have no labels).

        With ``on_error="skip"``, the next image that can be decoded, with its label, replaces an image that cannot
        be decoded.

        Raises:
            UserError: no image can be decoded, or ``on_error`` is ``"refuse"`` and image ``i`` cannot be decoded.
        """
        for j in range(i, i + len(self._names)):
            j %= len(self._names)
            try:
                return decode(self._content(self._names[j]), self.shape[:2], self.shape[2]), self._labels[j]
            except BadImage as error:
                if self._on_error == "refuse":
                    raise UserError(refusal(self._names[j], error)) from error
                if j not in self._warned:
                    self._warned.add(j)
                    log.warning(SKIPPED, self._names[j], error)
        raise UserError(_none_decoded(self._root, len(self._names)))

    def _content(self, name: str) -> bytes:
        if self._root.is_dir():
            return _read_file(self._root / name)
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self._root)
        return _read_member(self._local.archive, name)

    def fingerprint(self) -> str:
        """A digest of the image shape, the file names, and the file sizes or checksums.

        For a folder, the digest includes the file sizes. For a zip file, the digest includes the stored CRC
        checksums. The contents of the files are not read, because reading them would take as long as an epoch.
        """
        if self._root.is_dir():
            sizes = [(self._root / name).stat().st_size for name in self._names]
        else:
            with zipfile.ZipFile(self._root) as archive:
                sizes = [archive.getinfo(name).CRC for name in self._names]
        return hashlib.sha256(repr((self.shape, list(zip(self._names, sizes, strict=True)))).encode()).hexdigest()


def _none_decoded(path: str | Path, count: int) -> str:
    return (
        f"dataset.path={path}: none of the {count} image files can be decoded. Choose another folder or zip file."
    )


def _classes(names: list[str]) -> tuple[list[str], list[int]]:
    """A pair of lists: the names of the classes, and the label of each file.

    The top-level sub-folders are the classes if every file is in a sub-folder and there are at least two top-level
    sub-folders. Otherwise, the list of classes is empty and all labels are -1.
    """
    folders = [PurePosixPath(name).parts[0] if len(PurePosixPath(name).parts) > 1 else None for name in names]
    known = sorted({folder for folder in folders if folder is not None})
    if None in folders or len(known) < 2:
        return [], [-1] * len(names)
    return known, [known.index(str(folder)) for folder in folders]


def files_in(root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Sorted relative paths of the files with image suffixes in a folder or zip file, without hidden files.

    Files in folders named ``__MACOSX``, which macOS adds to zip files, are left out too.
    """
    if root.is_dir():
        found = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
    else:
        with zipfile.ZipFile(root) as archive:
            found = [member.filename for member in archive.infolist() if not member.is_dir()]
    return sorted(
        name
        for name in found
        if name.lower().endswith(suffixes)
        and not any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
    )


def contents_of(root: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yields ``(name, content)`` for each of the named files in a folder or zip file.

    The content is empty if the file is larger than ``MAX_FILE`` or is a damaged member of a zip file. ``decode``
    rejects empty content as a damaged image.
    """
    if root.is_dir():
        for name in names:
            yield name, _read_file(root / name)
        return
    with zipfile.ZipFile(root) as archive:
        for name in names:
            yield name, _read_member(archive, name)


def _read_file(file: Path) -> bytes:
    """The content of the file, or empty content if the file is larger than ``MAX_FILE``."""
    return file.read_bytes() if file.stat().st_size <= MAX_FILE else b""


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE + 1)
    except Exception:  # a damaged, encrypted or unsupported member counts as a damaged image
        return b""
    return content if len(content) <= MAX_FILE else b""
