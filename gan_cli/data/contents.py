"""Reads the contents of the files in a folder or zip file, up to a limit on their size."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from gan_cli.data.images import BadImage
from gan_cli.data.layout import KINDS, File

# Maximum size of a file in bytes. Larger files count as damaged images, because a member of a malicious zip file
# can decompress to any size.
MAX_FILE = 256 * 2**20
# The same for DICOM and NIfTI files, which may contain many slices.
MAX_SCAN = 2 * 2**30
_SCAN_SUFFIXES = (*KINDS["dicom"], *KINDS["nifti"])


def contents_of(root: Path, files: Iterable[File]) -> Iterator[tuple[str, bytes | BadImage]]:
    """Yields ``(name, content)`` for each of the given files in a folder or zip file.

    In place of the content, the function yields a ``BadImage`` with the reason if the file may not be read, is
    larger than ``MAX_FILE`` (a slice: ``MAX_SCAN``), or is a damaged member of a zip file.
    """
    with contextlib.nullcontext() if root.is_dir() else zipfile.ZipFile(root) as archive:
        for file in files:
            content: bytes | BadImage
            try:
                content = read_member(archive, file) if archive else read_file(root, file)
            except BadImage as error:
                content = error
            yield file.name, content


def _limit(file: File) -> int:
    return MAX_FILE if file.part is None and not file.name.lower().endswith(_SCAN_SUFFIXES) else MAX_SCAN


def _too_large(file: File) -> str:
    return f"the file is larger than {_limit(file) // 2**20:,} MiB"


def read_file(root: Path, file: File) -> bytes:
    """The content of a file in a folder.

    Raises:
        BadImage: the file may not be read or is too large.
    """
    try:
        with (root / file.member).open("rb") as content:
            if os.fstat(content.fileno()).st_size > _limit(file):
                raise BadImage(_too_large(file))
            return content.read()
    except PermissionError as error:
        raise BadImage(str(error.strerror)) from error


def read_member(archive: zipfile.ZipFile, file: File) -> bytes:
    """The content of a file in a zip file.

    Raises:
        BadImage: the file is damaged, encrypted or too large.
    """
    try:
        with archive.open(file.member) as member:
            content = member.read(_limit(file) + 1)
    except Exception as error:  # a damaged, encrypted or unsupported member counts as a damaged image
        raise BadImage(f"damaged or encrypted in the zip file: {error}") from error
    if len(content) > _limit(file):
        raise BadImage(_too_large(file))
    return content
