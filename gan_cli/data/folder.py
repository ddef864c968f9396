"""Images from a folder or zip file, of any mix of sizes, formats and colour modes."""

from __future__ import annotations

import hashlib
import logging
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.images import SKIPPED, SUFFIXES, BadImage, Skipped, decode, decode_all, refusal
from gan_cli.errors import UserError
from gan_cli.types import OnError, PositiveInt, Spec

log = logging.getLogger(__name__)

# Larger files are treated as damaged images. A member of a malicious zip file can decompress to any size.
MAX_FILE = 256 * 2**20


def folder(
    *,
    path: str,
    resolution: PositiveInt = 32,
    channels: Literal[1, 3] = 3,
    flip: bool = False,
    on_error: OnError = "skip",
    stream: bool | None = None,
) -> Dataset:
    """Images from a folder or zip file, with top-level sub-folders as classes.

    The images are sorted by their relative path. If every image is in a sub-folder and there are at least two
    top-level sub-folders, the top-level sub-folder of an image is its class; otherwise the images have no labels.
    Example: ``gan-train dataset=folder dataset.path=photos``.

    Args:
        path: folder or zip file with the images, searched recursively.
        resolution: side of the images in pixels; the shorter side is resized to it and the longer side is cropped.
        channels: 1 converts the images to greyscale, 3 to RGB.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        on_error: ``skip`` leaves out images that cannot be decoded; ``refuse`` stops with an error instead. In
            streamed data, ``skip`` replaces such an image by the next one that can be decoded.
        stream: whether images are decoded whenever a batch needs them, instead of all at the start; null streams
            if the decoded images take more than a quarter of the memory of the host or of the accelerator.

    Raises:
        UserError: the path does not exist, is neither a folder nor a zip file, or contains no image that can be
            decoded; or an image cannot be decoded and ``on_error`` is ``refuse``.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip file.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(f"dataset.path={path}: this is neither a folder nor a zip file. Give one of them.")
    names = files_in(root)
    if not names:
        raise UserError(f"dataset.path={path}: it contains no images (files named {', '.join(SUFFIXES)}).")
    if must_stream(len(names) * resolution * resolution * channels, stream):
        files = Files(root, names, (resolution, resolution, channels), on_error)
        spec = Spec(files.shape, -1.0, 1.0, len(files.classes) or None)
        return Dataset(f"{root.name} ({len(names)} images, streamed)", spec, files, flip=flip)
    skipped = Skipped()
    pairs = list(decode_all(contents_of(root, names), resolution, channels, on_error, skipped))
    if not pairs:
        raise UserError(_none_decoded(path, len(names)))
    classes, labels = _classes([name for name, _ in pairs])
    return Dataset(
        name=f"{root.name} ({len(pairs)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=Spec((resolution, resolution, channels), -1.0, 1.0, len(classes) or None),
        examples=np.stack([image for _, image in pairs]),
        labels=np.array(labels, np.int32) if classes else None,
        flip=flip,
    )


class Files:
    """A ``Source`` that decodes the images of a folder or zip file at each access."""

    def __init__(self, root: Path, names: list[str], shape: tuple[int, int, int], on_error: str):
        self._root, self._names, self._on_error = root, names, on_error
        self.shape = shape
        self.classes, self._labels = _classes(names)
        self.labelled = bool(self.classes)
        self._warned: set[int] = set()
        # Each thread opens the zip file again, because an open file has only one read position.
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Image ``i`` and its label; with ``on_error=skip``, the first image from ``i`` on that can be decoded.

        Raises:
            UserError: the image cannot be decoded and ``on_error`` is ``refuse``, or no image can be decoded.
        """
        for j in range(i, i + len(self._names)):
            j %= len(self._names)
            try:
                return decode(self._content(self._names[j]), self.shape[0], self.shape[2]), self._labels[j]
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
        """A digest of the names and sizes of the files, or of the checksums that a zip file stores.

        The contents of the files are not read, because that would take as long as an epoch.
        """
        if self._root.is_dir():
            sizes = [(self._root / name).stat().st_size for name in self._names]
        else:
            with zipfile.ZipFile(self._root) as archive:
                sizes = [archive.getinfo(name).CRC for name in self._names]
        return hashlib.sha256(repr((self.shape, list(zip(self._names, sizes, strict=True)))).encode()).hexdigest()


def _none_decoded(path: str | Path, count: int) -> str:
    return f"dataset.path={path}: none of its {count} image files can be decoded. Check the files."


def _classes(names: list[str]) -> tuple[list[str], list[int]]:
    """The names of the classes and the label of each file; no classes and labels of -1 if there are none.

    There are classes if every file is in a sub-folder and there are at least two top-level sub-folders.
    """
    folders = [PurePosixPath(name).parts[0] if len(PurePosixPath(name).parts) > 1 else None for name in names]
    known = sorted({folder for folder in folders if folder is not None})
    if None in folders or len(known) < 2:
        return [], [-1] * len(names)
    return known, [known.index(str(folder)) for folder in folders]


def files_in(root: Path) -> list[str]:
    """Sorted relative paths of the image files in a folder or zip file, without hidden files.

    The resource forks that macOS adds to zip files (``__MACOSX``) are left out too.
    """
    if root.is_dir():
        found = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
    else:
        with zipfile.ZipFile(root) as archive:
            found = [member.filename for member in archive.infolist() if not member.is_dir()]
    return sorted(
        name
        for name in found
        if name.lower().endswith(SUFFIXES)
        and not any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
    )


def contents_of(root: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yields ``(name, content)`` for these files of a folder or zip file; a damaged member has empty content."""
    if root.is_dir():
        for name in names:
            yield name, _read_file(root / name)
        return
    with zipfile.ZipFile(root) as archive:
        for name in names:
            yield name, _read_member(archive, name)


def _read_file(file: Path) -> bytes:
    """The content of the file; empty, which decodes as a damaged image, if it exceeds ``MAX_FILE``."""
    return file.read_bytes() if file.stat().st_size <= MAX_FILE else b""


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE + 1)
    except Exception:  # a member that is damaged, encrypted or of an unknown compression counts as a damaged image
        return b""
    return content if len(content) <= MAX_FILE else b""
