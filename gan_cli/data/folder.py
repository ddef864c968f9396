"""A folder or zip of images: any mix of sizes, formats and colour modes, sub-folders as classes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from gan_cli.data.images import SUFFIXES, Skipped, decode_all
from gan_cli.data.source import Dataset, check_memory
from gan_cli.errors import UserError
from gan_cli.types import OnError, PositiveInt, Spec

# A zip member may claim any size; no image file is larger than this.
MAX_FILE = 256 * 2**20


def folder(
    *,
    path: str,
    resolution: PositiveInt = 32,
    channels: Literal[1, 3] = 3,
    flip: bool = False,
    on_error: OnError = "skip",
) -> Dataset:
    """Every image under ``path``, in the order of its name, resized and cropped to ``resolution``.

    Where all images lie in sub-folders, the name of the first one is an image's class.

    Raises:
        UserError: there is no such folder or zip, no image in it, or one that ``on_error=refuse`` refuses.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(f"dataset.path={path}: is neither a folder nor a zip of images.")
    names = _names(root)
    if not names:
        raise UserError(f"dataset.path={path}: there are no images in it ({', '.join(SUFFIXES)}).")
    check_memory(len(names) * resolution * resolution * channels, "dataset.resolution")
    skipped = Skipped()
    pairs = list(decode_all(_contents(root, names), resolution, channels, on_error, skipped))
    if not pairs:
        raise UserError(f"dataset.path={path}: none of its {len(names)} images could be read.")
    classes = [PurePosixPath(name).parts[0] if len(PurePosixPath(name).parts) > 1 else None for name, _ in pairs]
    known = sorted({c for c in classes if c is not None})
    labels = None
    if None not in classes and len(known) > 1:
        labels = np.array([known.index(str(c)) for c in classes], np.int32)
    return Dataset(
        name=f"{root.name} ({len(pairs)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=Spec((resolution, resolution, channels), -1.0, 1.0, len(known) if labels is not None else None),
        examples=np.stack([image for _, image in pairs]),
        labels=labels,
        flip=flip,
    )


def _names(root: Path) -> list[str]:
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


def _contents(root: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    if root.is_dir():
        for name in names:
            file = root / name
            yield name, file.read_bytes() if file.stat().st_size <= MAX_FILE else b""
        return
    with zipfile.ZipFile(root) as archive:
        for name in names:
            try:
                with archive.open(name) as member:
                    content = member.read(MAX_FILE + 1)
            except Exception:  # damaged, encrypted or oddly packed: the member is a damaged image
                content = b""
            yield name, content if len(content) <= MAX_FILE else b""
