"""Folders of DICOM and NIfTI files: the slices of each file, and the images of each patient.

The identity of patients divides the images into training and held-out images, and is forgotten then. Names of files
and folders that contain a field of a patient are replaced by numbers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gan_cli.data import dicom, nifti
from gan_cli.data.contents import read_member
from gan_cli.data.features import Image
from gan_cli.data.images import BadImage, Skipped, decode, fitted_values, refusal
from gan_cli.data.layout import File, Listing, Reading, printable
from gan_cli.errors import UserError
from gan_cli.types import FileKind, Layout

# The kinds of files with slices: the name in messages, and the package that reads them.
SCANS: dict[FileKind, tuple[str, str]] = {"dicom": ("DICOM", "pydicom"), "nifti": ("NIfTI", "nibabel")}
PATIENTS: dict[FileKind, str] = {"dicom": "patients", "nifti": "subjects"}
# Maximum number of slices of a file, as a protection against headers that state any number.
MAX_SLICES = 1_000_000
# The most folders that are taken for classes although each contains the images of a single patient.
_CLASSES_OF_ONE_PATIENT = 2

Opened = Callable[[int | None], np.ndarray]


@dataclass(frozen=True)
class Scanning:
    """Which slices of DICOM and NIfTI files are images, and how their values become grey levels.

    Attributes:
        window: centre and width of the range of values from black to white, or None for the range of each file.
        axis: the axis of a NIfTI volume across which it is cut.
        slices: the first slice of each file, and the slice after the last. None for all slices.
    """

    window: tuple[float, float] | None = None
    axis: int = 2
    slices: tuple[int, int] | None = None

    def numbers(self, depth: int, times: int) -> Iterator[int]:
        """The numbers of the slices of a file with ``depth`` slices at each of ``times`` times."""
        chosen = range(depth)[slice(*self.slices)] if self.slices else range(depth)
        return (time * depth + i for time in range(times) for i in chosen)


def opener(kind: FileKind, x: Image, scanning: Scanning) -> Callable[[bytes], Opened]:
    """A function that opens the content of a file. The result decodes an image of the file by its number.

    Both functions raise a BadImage if the file or the image cannot be decoded.
    """

    def opened(content: bytes) -> Opened:
        if kind not in SCANS:
            return lambda part: decode(content, (x.height, x.width), x.channels, x.bits)
        slices: dicom.Frames | nifti.Slices
        if kind == "dicom":
            slices = dicom.Frames(content, scanning.window)
        else:
            slices = nifti.Slices(content, scanning.axis, scanning.window)
        return lambda part: fitted_values(slices[part or 0], (x.height, x.width, x.channels), x.bits)

    return opened


@dataclass
class Survey:
    """The facts of a folder of DICOM or NIfTI files.

    Attributes:
        kind: the kind of the files.
        patients: mapping from the members of the folder to the patients. Never to be stored.
        identifying: words that identify patients, in lower case. Never to be stored.
        counts: mapping from the members of the folder to the numbers of slices and of times.
        shapes: mapping from the members of the folder to height, width and number of channels.
        annotated: number of files that state that their pixels contain text.
        order: mapping from the members of the folder to their numbers in the order of their names, from 1.
    """

    kind: FileKind
    patients: dict[str, str] = field(default_factory=dict)
    identifying: set[str] = field(default_factory=set)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    annotated: int = 0
    order: dict[str, int] = field(default_factory=dict)

    def identifies(self, text: str) -> bool:
        """Whether a text contains a word that identifies a patient."""
        inner = (word for word in self.identifying if len(word) > 3)
        return not self.identifying.isdisjoint(dicom.words(text)) or any(word in text.lower() for word in inner)

    def shown(self, file: File) -> str:
        """The name of a file in messages."""
        if self.identifies(file.name):
            name = f"file {self.order[file.member]} of {len(self.order)} in the order of their names"
        else:
            name = printable(file.name)
        return name if file.part is None else f"{name}, slice {file.part}"

    def notes(self, reading: Reading) -> Iterator[str]:
        """Yields descriptions of the files of a reading."""
        if not self.shapes:
            return
        noun, _ = SCANS[self.kind]
        images = sum(depth * times for depth, times in self.counts.values())
        sizes = sorted({shape[:2] for shape in self.shapes.values()}, key=math.prod)
        low, high = (f"{width}x{height}" for height, width in (sizes[0], sizes[-1]))
        extent = low if low == high else f"{low} to {high}"
        count, people = len(set(self.patients.values())), PATIENTS[self.kind]
        people = people.removesuffix("s") if count == 1 else people
        yield f"{extent} pixels, {images:,} slices in {len(self.counts):,} {noun} files of {count:,} {people}"
        on_both = {self.patients[file.member] for file in reading.training} & {
            self.patients[file.member] for file in reading.held_out
        }
        if on_both:
            yield f"images of {len(on_both):,} {people} are both in training and held out"
        if self.annotated:
            yield f"{self.annotated:,} files state that text is burned into their pixels, which may name patients"


def check_installed(kind: FileKind, path: str) -> None:
    """Raise a UserError if the package that reads a kind of files is not installed."""
    if kind in SCANS and importlib.util.find_spec(SCANS[kind][1]) is None:
        noun, package = SCANS[kind]
        raise UserError(
            f"dataset.path={path}: reading {noun} files needs the package {package}. Install it: pip install "
            "'gan_cli[medical]'."
        )


def survey(root: Path, listing: Listing, scanning: Scanning, on_error: str, skipped: Skipped) -> Survey:
    """Reads the headers of all files of a listing, and removes the files without an image from the listing.

    Raises:
        UserError: a file cannot be read and ``on_error`` is ``"refuse"``.
    """
    found = Survey(listing.kind, order={file.member: i for i, file in enumerate(listing.files, 1)})
    damaged: list[tuple[File, BadImage]] = []
    for file, open_file in _openers(root, listing.files):
        try:
            with open_file() as content:
                _add(found, file, content, scanning)
        except BadImage as error:
            damaged.append((file, error))
        except Exception as error:  # the file may not be read, or is a damaged member of a zip file
            damaged.append((file, BadImage(f"it cannot be read: {type(error).__name__}")))
    for file, reason in damaged:  # named only now, because the names of patients are known now
        if on_error == "refuse":
            raise UserError(refusal(found.shown(file), reason)) from reason
        skipped.add(found.shown(file), reason)
    others = len(listing.files) - len(found.counts) - len(damaged)
    listing.passed_over += Counter({f"{SCANS[listing.kind][0]} files without an image": others})
    listing.files = [file for file in listing.files if file.member in found.counts]
    return found


def patients_of(root: Path, files: Iterable[File]) -> dict[str, str]:
    """Mapping from the members of DICOM files to the patients, or to an empty text for files without an image.

    A file that names no patient is a patient of its own.
    """
    found = {}
    for file, open_file in _openers(root, files):
        try:
            with open_file() as content:
                head = dicom.header(content)
        except Exception:  # the file may not be read or is damaged, which its reader reports
            head = None
        found[file.member] = (head.patient or file.name) if head else ""
    return found


def first_shape(root: Path, listing: Listing) -> tuple[int, int, int]:
    """Height, width and number of channels of the first image that can be read, or (32, 32, 3) if there is none."""
    listing.files = listing.files[:16]
    check_installed(listing.kind, str(root))
    found = survey(root, listing, Scanning(), "skip", Skipped())
    if not found.counts:
        return 32, 32, 3
    return found.shapes[listing.files[0].member]


def _add(found: Survey, file: File, content: BinaryIO, scanning: Scanning) -> None:
    """Add the header of a file to a survey, unless the file contains no image."""
    if found.kind == "nifti":
        depth, times, *shape = (*nifti.slices(content, scanning.axis), 1)
        of_subject = re.search(r"(?:^|/)(sub-[^/_]+)", file.name)  # the naming of subjects by BIDS
        found.patients[file.member] = of_subject[1] if of_subject else file.name
    else:
        head = dicom.header(content)
        if head is None:
            return
        depth, times, *shape = head.frames, 1, head.height, head.width, head.channels
        found.patients[file.member] = head.patient or file.name
        found.identifying |= head.identifying
        found.annotated += head.annotated
    if depth * times > MAX_SLICES:
        raise BadImage(f"{depth * times:,} slices exceed the limit of {MAX_SLICES:,}")
    found.counts[file.member] = depth, times
    found.shapes[file.member] = (shape[0], shape[1], shape[2])


def _openers(root: Path, files: Iterable[File]) -> Iterator[tuple[File, Callable[[], BinaryIO]]]:
    def of_path(member: str) -> Callable[[], BinaryIO]:
        return lambda: (root / member).open("rb")

    def of_archive(archive: zipfile.ZipFile, file: File) -> Callable[[], BinaryIO]:
        return lambda: io.BytesIO(read_member(archive, file._replace(part=0)))

    with contextlib.nullcontext() if root.is_dir() else zipfile.ZipFile(root) as archive:
        for file in files:
            yield file, of_archive(archive, file) if archive else of_path(file.member)


def without_patients_as_classes(reading: Reading, layout: Layout | None, found: Survey) -> tuple[Reading, str]:
    """A pair: the reading without classes that are patients, and a note.

    Folders are patients if their names contain a field of a patient, or if there are at least three and each
    contains all images of a single patient. With ``layout="classes"``, they remain classes; names that contain a
    field of a patient become numbers.
    """
    if not reading.classes:
        return reading, ""
    named = any(found.identifies(name) for name in reading.classes)
    pairs = {
        (found.patients[file.member], label) for file, label in zip(reading.training, reading.labels, strict=True)
    }
    one_each = len(pairs) == len({patient for patient, _ in pairs}) == len({label for _, label in pairs})
    if layout == "classes" or not (named or (one_each and len(pairs) > _CLASSES_OF_ONE_PATIENT)):
        if not named:
            return reading, ""
        numbers = [str(i) for i in range(len(reading.classes))]
        return reading._replace(classes=numbers), "the names of the classes are numbers, because they name patients"
    flat = reading._replace(labels=[-1] * len(reading.training), classes=[], held_out_labels=None)
    note = "each sub-folder is a patient, not a class; dataset.layout=classes makes the sub-folders classes"
    return flat, note


def expanded(reading: Reading, found: Survey, scanning: Scanning) -> Reading:
    """The reading with the chosen slices of each file in place of the file."""

    def parts(files: Sequence[File], labels: Sequence[int] | None) -> tuple[list[File], list[int]]:
        slices, of_slices = [], []
        for i, file in enumerate(files):
            depth, times = found.counts[file.member]
            for number in scanning.numbers(depth, times):
                slices.append(file._replace(part=None if depth * times == 1 else number))
                of_slices.append(-1 if labels is None else labels[i])
        return slices, of_slices

    training, labels = parts(reading.training, reading.labels)
    held_out, held_out_labels = parts(reading.held_out, reading.held_out_labels)
    return reading._replace(
        training=training,
        labels=labels,
        held_out=held_out,
        held_out_labels=None if reading.held_out_labels is None else held_out_labels,
    )
