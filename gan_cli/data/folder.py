"""A folder or zip of images: any mix of sizes, formats and colour modes, sub-folders as classes."""

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
from gan_cli.data.images import SUFFIXES, BadImage, Skipped, decode, decode_all
from gan_cli.errors import UserError
from gan_cli.types import OnError, PositiveInt, Spec

log = logging.getLogger(__name__)

# A zip member may claim any size; no image file is larger than this.
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
    """Every image under ``path``, in the order of its name, resized and cropped to ``resolution``.

    Where all images lie in sub-folders, the name of the first one is an image's class.

    Args:
        stream: whether images are decoded each time a batch needs them instead of all at the start; None streams
            where they would take more than a quarter of the memory.

    Raises:
        UserError: there is no such folder or zip, no image in it, or one that ``on_error=refuse`` refuses.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(f"dataset.path={path}: is neither a folder nor a zip of images.")
    names = files_in(root)
    if not names:
        raise UserError(f"dataset.path={path}: there are no images in it ({', '.join(SUFFIXES)}).")
    if must_stream(len(names) * resolution * resolution * channels, stream):
        files = Files(root, names, (resolution, resolution, channels), on_error)
        spec = Spec(files.shape, -1.0, 1.0, len(files.classes) or None)
        return Dataset(f"{root.name} ({len(names)} images, streamed)", spec, files, flip=flip)
    skipped = Skipped()
    pairs = list(decode_all(contents_of(root, names), resolution, channels, on_error, skipped))
    if not pairs:
        raise UserError(f"dataset.path={path}: none of its {len(names)} images could be read.")
    classes, labels = _classes([name for name, _ in pairs])
    return Dataset(
        name=f"{root.name} ({len(pairs)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=Spec((resolution, resolution, channels), -1.0, 1.0, len(classes) or None),
        examples=np.stack([image for _, image in pairs]),
        labels=np.array(labels, np.int32) if classes else None,
        flip=flip,
    )


class Files:
    """The images of a folder or zip as a source: each is decoded when it is asked for."""

    def __init__(self, root: Path, names: list[str], shape: tuple[int, int, int], on_error: str):
        self._root, self._names, self._on_error = root, names, on_error
        self.shape = shape
        self.classes, self._labels = _classes(names)
        self.labelled = bool(self.classes)
        self._told: set[int] = set()
        self._local = threading.local()  # a zip file has one position: each thread opens its own

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Image ``i``; under ``on_error=skip``, the next one that can be decoded stands in for one that cannot.

        Raises:
            UserError: it cannot be decoded, and ``on_error=refuse``; or none can.
        """
        for j in range(i, i + len(self._names)):
            j %= len(self._names)
            try:
                return decode(self._content(self._names[j]), self.shape[0], self.shape[2]), self._labels[j]
            except BadImage as error:
                if self._on_error == "refuse":
                    raise UserError(f"{self._names[j]}: {error}.\ndataset.on_error=skip passes it over.") from error
                if j not in self._told:
                    self._told.add(j)
                    log.warning("skipped %s: %s", self._names[j], error)
        raise UserError(f"dataset.path={self._root}: none of its {len(self._names)} images could be read.")

    def _content(self, name: str) -> bytes:
        if self._root.is_dir():
            return _read_file(self._root / name)
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self._root)
        return _read_member(self._local.archive, name)

    def fingerprint(self) -> str:
        """Of the files' names and sizes: reading them all would take as long as an epoch."""
        if self._root.is_dir():
            sizes = [(self._root / name).stat().st_size for name in self._names]
        else:
            with zipfile.ZipFile(self._root) as archive:
                sizes = [archive.getinfo(name).CRC for name in self._names]
        return hashlib.sha256(repr((self.shape, list(zip(self._names, sizes, strict=True)))).encode()).hexdigest()


def _classes(names: list[str]) -> tuple[list[str], list[int]]:
    """The classes, none where not all files lie in sub-folders of two names or more, and each file's label."""
    folders = [PurePosixPath(name).parts[0] if len(PurePosixPath(name).parts) > 1 else None for name in names]
    known = sorted({folder for folder in folders if folder is not None})
    if None in folders or len(known) < 2:
        return [], [-1] * len(names)
    return known, [known.index(str(folder)) for folder in folders]


def files_in(root: Path) -> list[str]:
    """The image files under ``root`` by relative name, sorted, hidden ones and resource forks left out."""
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
    if root.is_dir():
        for name in names:
            yield name, _read_file(root / name)
        return
    with zipfile.ZipFile(root) as archive:
        for name in names:
            yield name, _read_member(archive, name)


def _read_file(file: Path) -> bytes:
    """The file's content; nothing, which is a damaged image, where it is too large to be one."""
    return file.read_bytes() if file.stat().st_size <= MAX_FILE else b""


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE + 1)
    except Exception:  # damaged, encrypted or oddly packed: the member is a damaged image
        return b""
    return content if len(content) <= MAX_FILE else b""
