"""Finds the image files in a folder or zip file, and divides them into classes and splits by their sub-folders."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from gan_cli.data.images import ARRAY_SUFFIX, SUFFIXES, UNREAD, is_dicom
from gan_cli.errors import UserError
from gan_cli.types import FileKind, Layout

log = logging.getLogger(__name__)

# Names of the folders of held-out images beside a folder named ``train``, in lower case.
_HELD_OUT = ("test", "val", "valid", "validation")


# The suffixes of each kind of image files. The files of the first kind that a folder contains are its images.
KINDS: dict[FileKind, tuple[str, ...]] = {
    "pictures": SUFFIXES,
    "dicom": (".dcm", ".dicom"),
    "nifti": (".nii", ".nii.gz"),
    "arrays": (ARRAY_SUFFIX,),
}
# Suffixes that ``left out`` names in folders of DICOM files, whose names may contain the names of patients.
_HARMLESS = (*SUFFIXES, *UNREAD, ".npy", ".npz", ".nii", ".gz", ".txt", ".csv", ".json", ".xml", ".pdf", ".zip")


class File(NamedTuple):
    """An image file, or a slice of a file with several slices.

    Attributes:
        name: path relative to the folder or zip file, with ``/`` between the folders.
        member: the name under which the folder or zip file contains the file. A zip file that was made on Windows
            may have ``\\`` between the folders.
        linked: whether the path leads through a symbolic link to a folder.
        part: the number of the slice, or None for a file of one image.
    """

    name: str
    member: str
    linked: bool = False
    part: int | None = None


@dataclass
class Listing:
    """The files in a folder or zip file.

    Attributes:
        files: the image files, sorted by name.
        passed_over: mapping from the kinds of all other files and folders, such as ``.heic files``, to their
            numbers.
        kind: the kind of the image files.
    """

    files: list[File] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    kind: FileKind = "pictures"

    def choose(self, found: Sequence[File], kind: FileKind | None, start: Callable[[File], bytes]) -> None:
        """Divide files into images and files that are passed over.

        DICOM files often have no suffix, or the end of a number. They are recognised by their preamble, unless the
        images are of another kind.

        Args:
            found: all files.
            kind: the kind of the images. With None, the first of ``KINDS`` of which there are files.
            start: returns the first 132 bytes of a file.
        """
        of_kind: dict[FileKind | None, list[File]] = {None: []}
        for file in found:
            of_kind.setdefault(_kind_of(file.name), []).append(file)
        if kind == "dicom" or (kind is None and "pictures" not in of_kind):
            for file in list(of_kind[None]):
                if is_dicom(start(file)) and PurePosixPath(file.name).name != "DICOMDIR":
                    of_kind.setdefault("dicom", []).append(file)
                    of_kind[None].remove(file)
        present: list[FileKind] = [one for one in KINDS if one in of_kind]
        self.kind = kind or (present[0] if present else "pictures")
        self.files = sorted(of_kind.pop(self.kind, []))
        for file in (file for files in of_kind.values() for file in files):
            suffix = printable(PurePosixPath(file.name).suffix.lower())
            remedy = f" ({UNREAD[suffix]})" if suffix in UNREAD else ""
            if self.kind == "dicom" and suffix and suffix not in _HARMLESS:
                self.passed_over["other files"] += 1
            else:
                self.passed_over[f"{suffix} files{remedy}" if suffix else "files without a suffix"] += 1


class Reading(NamedTuple):
    """The division of image files into classes and splits.

    Attributes:
        training: the training images, sorted by name.
        labels: the label of each training image, or -1 without classes.
        classes: the names of the classes; empty without classes.
        held_out: the held-out images, sorted by name.
        held_out_labels: the label of each held-out image. None if a held-out image has none of the classes.
        passed_over: mapping like ``Listing.passed_over``, of the images that the layout leaves out.
        note: description of the splits, or an empty text.
    """

    training: list[File]
    labels: list[int]
    classes: list[str]
    held_out: list[File] = []
    held_out_labels: list[int] | None = None
    passed_over: Counter[str] = Counter()
    note: str = ""


def _kind_of(name: str) -> FileKind | None:
    return next((kind for kind, suffixes in KINDS.items() if name.lower().endswith(suffixes)), None)


def list_files(root: Path, on_error: str, kind: FileKind | None = None) -> Listing:
    """Lists the files in a folder or zip file, including the files in sub-folders.

    Symbolic links are followed, except links to a folder that contains the link. Hidden files and folders, and
    the folders ``__MACOSX`` that macOS adds to zip files, are passed over.

    Args:
        root: the folder or zip file.
        on_error: treatment of folders that cannot be read, ``"skip"`` or ``"refuse"``.
        kind: the kind of files that are the images, as for ``Listing.choose``.

    Raises:
        UserError: a folder cannot be read and ``on_error`` is ``"refuse"``.
    """
    listing, found = Listing(), list[File]()
    if root.is_dir():
        _list_folder(root, on_error, listing, found)
        listing.choose(found, kind, lambda file: _start(root / file.member))
    else:
        with zipfile.ZipFile(root) as archive:
            for member in archive.infolist():
                name = member.filename.replace("\\", "/")
                if any(_is_hidden(part) for part in PurePosixPath(name).parts):
                    listing.passed_over["hidden files"] += not name.endswith("/")
                elif not name.endswith("/"):
                    found.append(File(name, member.filename))
            listing.choose(found, kind, lambda file: _start_of_member(archive, file.member))
    listing.passed_over = +listing.passed_over
    return listing


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError:
        return b""


def _start_of_member(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(132)
    except Exception:  # a damaged, encrypted or unsupported member
        return b""


def _list_folder(root: Path, on_error: str, listing: Listing, found: list[File]) -> None:
    # Each entry: a folder, the prefix of its files' names, the identities of the folder and of the folders that
    # contain it, and whether its path leads through a symbolic link.
    outside = frozenset((status.st_dev, status.st_ino) for status in map(os.stat, root.resolve().parents))
    waiting = [(root, "", outside, False)]
    while waiting:
        folder, prefix, above, linked = waiting.pop()
        try:
            status = folder.stat()
            if (identity := (status.st_dev, status.st_ino)) in above:
                listing.passed_over["links to a folder that contains the link"] += 1
                continue
            entries = list(os.scandir(folder))
        except OSError as error:
            where, reason = printable(str(folder)), error.strerror or error
            if on_error == "refuse":
                raise UserError(
                    f"{where}: the folder cannot be read ({reason}).\n"
                    "Change its permissions, or set dataset.on_error=skip to leave out what cannot be read."
                ) from error
            listing.passed_over["folders that cannot be read"] += 1
            log.warning("%s: the folder cannot be read (%s) and is skipped.", where, reason)
            continue
        for entry in entries:
            name = prefix + entry.name
            if _is_hidden(entry.name):
                listing.passed_over["hidden files and folders"] += 1
            elif (kind := _kind(entry)) == "folder":
                through = linked or entry.is_symlink()
                waiting.append((Path(entry.path), f"{name}/", above | {identity}, through))
            elif kind == "file":
                found.append(File(name, name, linked))
            else:
                listing.passed_over[kind] += 1


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # the target of a link cannot be reached
        pass
    return "broken links" if entry.is_symlink() else "pipes, sockets or devices"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def read(listing: Listing, layout: Layout | None, path: str) -> Reading:
    """Divides the images of a listing into classes and splits.

    Args:
        listing: the files in the folder or zip file.
        layout: the value of ``dataset.layout``. With None, the layout is recognised.
        path: the value of ``dataset.path``, for error messages.

    Raises:
        UserError: the images do not have the layout, or ``layout`` is None and the layout is ambiguous.
    """
    if layout == "earlier":
        return _as_earlier([File(file.member, file.member) for file in listing.files if not file.linked])
    files = listing.files
    if layout == "flat":
        return Reading(files, [-1] * len(files), [])
    tails, _ = _without_common_folders([PurePosixPath(file.name).parts for file in files])
    folders = _folders(tails)
    loose = [file for file, tail in zip(files, tails, strict=True) if len(tail) == 1]
    train = [name for name in folders if name.lower() == "train"]
    held_out = [name for name in folders if name.lower() in _HELD_OUT]
    if layout == "splits" and not train:
        raise UserError(
            f"dataset.layout=splits: there is no folder train with images in {path}. Name the folder of the "
            "training images train, or set dataset.layout=classes or dataset.layout=flat."
        )
    if layout == "splits" or (layout is None and train and held_out):
        others = [name for name in folders if name not in train + held_out]
        if layout is None and (others or loose):
            beside = f"the folders {some(others)}" if others else _images(loose)
            raise UserError(
                f"dataset.path={path}: the folders {some(train + held_out)} look like splits of the data, but "
                f"the data also contain {beside}.\n"
                f"Set dataset.layout=splits to train on {some(train)} only, dataset.layout=classes to use the "
                f"{len(folders)} folders as classes, or dataset.layout=flat to train on all {len(files):,} images "
                "without classes."
            )
        return _splits(files, tails, train, held_out, path)
    if layout == "classes" and len(folders) < 2:
        raise UserError(
            f"dataset.layout=classes: {path} has fewer than two folders with images. "
            "Move the images of each class into a folder, or set dataset.layout=flat."
        )
    if loose and len(folders) > 1 and layout is None:
        raise UserError(
            f"dataset.path={path}: contains the folders {some(folders)} and beside them {_images(loose)}, so it "
            "is not clear whether the folders are classes.\n"
            f"Set dataset.layout=classes to train on the {len(files) - len(loose):,} images in the folders, with "
            f"the folders as {len(folders)} classes, or dataset.layout=flat to train on all {len(files):,} images "
            "without classes."
        )
    if layout == "classes":
        left_out = Counter({"images outside of the class folders": len(loose)} if loose else {})
        kept = [(file, tail) for file, tail in zip(files, tails, strict=True) if len(tail) > 1]
        return Reading([file for file, _ in kept], *_classes([tail for _, tail in kept]), passed_over=left_out)
    return Reading(files, *_classes(tails))


def _splits(
    files: list[File], tails: list[tuple[str, ...]], train: list[str], held_out: list[str], path: str
) -> Reading:
    def of(names: list[str]) -> tuple[list[File], list[tuple[str, ...]]]:
        pairs = [pair for pair in zip(files, tails, strict=True) if len(pair[1]) > 1 and pair[1][0] in names]
        return [file for file, _ in pairs], [tail[1:] for _, tail in pairs]

    training, inner = of(train)
    inner, depth = _without_common_folders(inner)
    loose = [file for file, tail in zip(training, inner, strict=True) if len(tail) == 1]
    if loose and len(_folders(inner)) > 1:
        raise UserError(
            f"dataset.path={path}: {train[0]} contains the folders {some(_folders(inner))} and beside them "
            f"{_images(loose)}, so it is not clear whether the folders are classes. "
            "Move the images into one of the folders, or remove them."
        )
    labels, classes = _classes(inner)
    others, ends = of(held_out)
    tops = [tail[depth] if len(tail) > depth + 1 else None for tail in ends]
    known = {name: i for i, name in enumerate(_folders(inner))} if classes else {}
    of_others = [known[top] for top in tops if top in known]
    left_out = len(files) - len(training) - len(others)
    return Reading(
        training,
        labels,
        classes,
        others,
        of_others if classes and len(of_others) == len(others) else None,
        Counter({"images outside of the splits": left_out} if left_out else {}),
        f"{some(train)} for training" + (f", {some(held_out)} held out" if held_out else ""),
    )


def held_out_share(reading: Reading, share: float, group_of: Callable[[File], str], noun: str) -> Reading:
    """The reading with a share of its groups of images, e.g. of the patients, as held-out images.

    The groups of each class are chosen at random, but always the same for the same groups. A group with images of
    several classes counts for the class of its first image.

    Args:
        reading: the reading, which has no held-out images.
        share: share of the groups, the value of ``dataset.hold_out``.
        group_of: returns the name of the group of an image file.
        noun: the plural of a group in messages.

    Raises:
        UserError: the reading has held-out images, or there is only one group.
    """
    if reading.held_out:
        raise UserError(
            f"dataset.hold_out={share:g}: the folders already hold out images ({reading.note}). Set "
            "dataset.hold_out=0, or use all images with dataset.layout=flat."
        )
    label_of: dict[str, int] = {}
    for file, label in zip(reading.training, reading.labels, strict=True):
        label_of.setdefault(group_of(file), label)
    if len(label_of) < 2:
        raise UserError(
            f"dataset.hold_out={share:g}: needs images of at least two {noun}, of which it holds out some. Set "
            "dataset.hold_out=0."
        )
    rng, chosen = np.random.default_rng(0), list[str]()
    for label in sorted(set(label_of.values())):
        groups = sorted(name for name, one in label_of.items() if one == label)
        chosen += [groups[i] for i in rng.permutation(len(groups))[: round(share * len(groups))]]
    chosen = chosen[: len(label_of) - 1] or [sorted(label_of)[rng.integers(len(label_of))]]
    outside = set(chosen)
    kept: list[tuple[File, int]] = []
    held_out: list[tuple[File, int]] = []
    for pair in zip(reading.training, reading.labels, strict=True):
        (held_out if group_of(pair[0]) in outside else kept).append(pair)
    return reading._replace(
        training=[file for file, _ in kept],
        labels=[label for _, label in kept],
        held_out=[file for file, _ in held_out],
        held_out_labels=[label for _, label in held_out] if reading.classes else None,
        note=f"{len(chosen):,} of {len(label_of):,} {noun} held out",
    )


def _as_earlier(files: list[File]) -> Reading:
    """The reading of versions without the option ``dataset.layout``, with class folders in the order of text."""
    files = sorted(files)
    tops = [parts[0] if len(parts := PurePosixPath(file.name).parts) > 1 else None for file in files]
    known = sorted({top for top in tops if top is not None})
    if None in tops or len(known) < 2:
        return Reading(files, [-1] * len(files), [])
    numbers = {name: i for i, name in enumerate(known)}
    return Reading(files, [numbers[top] for top in tops if top is not None], [printable(name) for name in known])


def _classes(tails: Sequence[tuple[str, ...]]) -> tuple[list[int], list[str]]:
    """A pair: the label of each image, and the names of the classes.

    The first folders of the paths ``tails`` are the classes if every image is in one of at least two folders.
    Otherwise, all labels are -1 and there are no classes.
    """
    folders = _folders(tails)
    if len(folders) < 2 or any(len(tail) == 1 for tail in tails):
        return [-1] * len(tails), []
    numbers = {name: i for i, name in enumerate(folders)}
    return [numbers[tail[0]] for tail in tails], [printable(name) for name in folders]


def _folders(tails: Iterable[tuple[str, ...]]) -> list[str]:
    return sorted({tail[0] for tail in tails if len(tail) > 1}, key=natural)


def natural(name: str) -> tuple[list[Any], str]:
    """A key that sorts the numbers in names by their value, so that 2 comes before 10."""
    parts: list[Any] = []
    for i, part in enumerate(re.split("([0-9]+)", name)):
        # Numbers are compared by their length first, because int() refuses thousands of digits.
        parts.append((len(digits := part.lstrip("0")), digits) if i % 2 else part)
    return parts, name


def _without_common_folders(paths: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], int]:
    """A pair: the paths without the folders that contain all of them, and the number of these folders."""
    depth = 0
    while paths and len({path[0] for path in paths}) == 1 and all(len(path) > 1 for path in paths):
        paths, depth = [path[1:] for path in paths], depth + 1
    return paths, depth


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 replaced by escape sequences, so that it can be printed and stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _images(files: list[File]) -> str:
    noun = "1 image" if len(files) == 1 else f"{len(files):,} images"
    return f"{noun} ({some([file.name for file in files])})"


def some(names: list[str]) -> str:
    """The first five names, for messages."""
    shown = [printable(name) for name in names[:5]]
    return ", ".join(shown) + (", ..." if len(names) > 5 else "")
