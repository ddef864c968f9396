"""The images of a folder or zip file as a ``Source``, which decodes an image when a batch needs it."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.contents import read_file, read_member
from gan_cli.data.features import Image
from gan_cli.data.images import SKIPPED, BadImage, refusal
from gan_cli.data.layout import File, Reading, printable
from gan_cli.data.scans import Opened, Scanning, opener
from gan_cli.errors import UserError

log = logging.getLogger(__name__)

# The fingerprint of a streamed folder covers the contents of at most _SAMPLED files, three slices of each.
_SAMPLED, _SLICE = 20_000, 4096


class Files:
    """A ``Source`` of the images in a folder or zip file, which decodes an image at each access.

    Args:
        root: the folder or zip file.
        reading: the images.
        x: the feature of the images.
        on_error: treatment of images that cannot be decoded.
        opened: opens the content of a file. With None, the files are pictures or arrays.
        shown: returns the name of a file in messages. With None, its path.
        options: options that change the images, for the fingerprint.
    """

    def __init__(
        self,
        root: Path,
        reading: Reading,
        x: Image,
        on_error: str,
        opened: Callable[[bytes], Opened] | None = None,
        shown: Callable[[File], str] | None = None,
        options: tuple[object, ...] = (),
    ):
        self._root, self._files, self._labels, self._on_error = root, reading.training, reading.labels, on_error
        self._x, self._classes, self._options = x, reading.classes, options
        self._opened = opened or opener("pictures", x, Scanning())
        self._shown = shown or (lambda file: printable(file.name))
        self.labels = np.array(reading.labels, np.int32) if reading.classes else None
        self._warned: set[int] = set()
        # Each thread opens the zip file separately, because an open file has only one read position.
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Image ``i`` as uint8 or uint16, and its label.

        With ``on_error="skip"``, the next image that can be decoded, with its label, replaces an image that cannot
        be decoded.

        Raises:
            UserError: no image can be decoded, or ``on_error`` is ``"refuse"`` and image ``i`` cannot be decoded.
        """
        for j in range(i, i + len(self._files)):
            j %= len(self._files)
            try:
                return {"x": self._image(self._files[j]), "label": self._labels[j]}
            except BadImage as error:
                name = self._shown(self._files[j])
                if self._on_error == "refuse":
                    raise UserError(refusal(name, error)) from error
                if j not in self._warned:
                    self._warned.add(j)
                    log.warning(SKIPPED, name, error)
        raise UserError(none_decoded(self._root, len(self._files)))

    def content(self, i: int) -> bytes:
        """The bytes of file ``i``.

        Raises:
            BadImage: the file cannot be read.
        """
        return self._content(self._files[i])

    def _image(self, file: File) -> np.ndarray:
        if file.part is None:
            return self._opened(self._content(file))(None)
        # Neighbouring slices are often read after each other, and each file is decompressed as a whole.
        if getattr(self._local, "member", None) != file.member:
            self._local.member = None
            self._local.image = self._opened(self._content(file))
            self._local.member = file.member
        image: np.ndarray = self._local.image(file.part)
        return image

    def _content(self, file: File) -> bytes:
        if self._root.is_dir():
            return read_file(self._root, file)
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self._root)
        return read_member(self._local.archive, file)

    def fingerprint(self) -> str:
        """A digest of the image shape, the names, sizes and labels of all files, and a sample of their contents.

        For a folder, the sample consists of up to ``_SAMPLED`` evenly spaced files: the first, middle and last
        ``_SLICE`` bytes of each. For a zip file, the stored CRC checksums of all files are used instead.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        named: list[tuple[object, ...]] = [
            (file.name, size) if file.part is None else (file.name, size, file.part)
            for file, size in zip(self._files, self._sizes, strict=True)
        ]
        facts = (self._format, named, self._classes, self._labels, *self._options)
        digest = hashlib.sha256(repr(facts).encode())
        if self._root.is_dir():
            members = list(dict.fromkeys(file.member for file in self._files))
            count = min(len(members), _SAMPLED)
            chosen = [self._root / members[i * len(members) // count] for i in range(count)]
            with ThreadPoolExecutor(16) as readers:  # the time of small reads is mostly waiting
                for part in readers.map(sample, chosen):
                    digest.update(part)
        return digest.hexdigest()

    def earlier_fingerprint(self) -> str:
        """The fingerprint that versions without ``dataset.layout`` computed from names and sizes or checksums."""
        named = [(file.member, size) for file, size in zip(self._files, self._sizes, strict=True)]
        return hashlib.sha256(repr((self._format, named)).encode()).hexdigest()

    @property
    def _format(self) -> tuple[int, ...]:
        """The shape of the images and, unless they have 8 bits, the number of bits."""
        return self._x.shape if self._x.bits == 8 else (*self._x.shape, self._x.bits)

    @functools.cached_property
    def _sizes(self) -> list[int]:
        """The size of each file in a folder, or the CRC checksum of each file in a zip file."""
        members = {file.member for file in self._files}
        if self._root.is_dir():
            sizes = {member: (self._root / member).stat().st_size for member in members}
        else:
            with zipfile.ZipFile(self._root) as archive:
                sizes = {member: archive.getinfo(member).CRC for member in members}
        return [sizes[file.member] for file in self._files]


def sample(path: Path) -> bytes:
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


def none_decoded(path: str | Path, count: int, reason: str = "") -> str:
    """The message that no file of a folder can be decoded, with the reason for the first."""
    why = f" (the first: {reason})" if reason else ""
    return (
        f"dataset.path={path}: none of the {count} image files can be decoded{why}. Choose another folder or zip "
        "file."
    )
