"""Data set of the images in a folder or zip file. Images may differ in size, format and colour mode."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gan_cli.data import features, scans
from gan_cli.data.capacity import must_stream
from gan_cli.data.contents import contents_of as contents_of
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.images import FORMATS, BadImage, Skipped, refusal, sides
from gan_cli.data.layout import KINDS, File, Listing, Reading, held_out_share, list_files, printable, read
from gan_cli.data.scans import SCANS, Opened, Scanning
from gan_cli.data.streamed_folder import Files, none_decoded
from gan_cli.errors import UserError
from gan_cli.storage import files as storage
from gan_cli.types import (
    Axis,
    Bits,
    Channels,
    Duplicates,
    FileKind,
    Layout,
    NonNegativeInt,
    OnError,
    Resolution,
    Share,
    Slices,
    Window,
)

_AXIAL: Axis = 2  # the default axis of NIfTI volumes
_RENUMBERED = (
    "Versions without the option dataset.layout numbered or divided the sub-folders of this data set in another "
    "way. To resume a run of such a version, add dataset.layout=earlier."
)


def folder(
    *,
    path: str,
    resolution: Resolution = 32,
    channels: Channels = 3,
    bits: Bits = 8,
    flip: bool = False,
    on_error: OnError = "skip",
    layout: Layout | None = None,
    stream: bool | None = None,
    duplicates: Duplicates = "warn",
    canaries: NonNegativeInt = 0,
    hold_out: Share = 0.0,
    files: FileKind | None = None,
    window: Window | None = None,
    axis: Axis = _AXIAL,
    slices: Slices | None = None,
) -> Dataset:
    """Images from a folder or zip file, with top-level sub-folders as classes.

    The images are sorted by their relative path, and the classes by name, with numbers in numerical order. The
    images are pictures (PNG, JPEG, TIFF and others) or, in a folder without pictures, the slices of DICOM or NIfTI
    files, or arrays. Example: ``gan-train dataset=folder dataset.path=photos``.

    Args:
        path: folder or zip file with the images. Sub-folders are searched too.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre.
        channels: number of channels. 1 converts all images to greyscale, 3 converts all images to RGB, and 4 keeps
            the transparency of the images (RGBA). With 1 and 3, transparent images are blended with white. Any
            other number needs images with this number of channels, which have no colours: the pages of TIFF files,
            or arrays ``[h, w, c]`` in ``.npy`` files.
        bits: bits per value, 8 or 16. 16 keeps the values of 16-bit PNG, TIFF and ``.npy`` files, and multiplies
            values of 8 bits by 257.
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
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.
        canaries: number of random images that test a claim of privacy. Each is added to the training images by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.
        hold_out: share of the patients (DICOM), subjects (NIfTI) or pictures that training does not use, for
            example 0.1. No patient has images on both sides. With 0, only folders named ``test`` and the like
            hold out images.
        files: kind of the files that are the images: ``pictures``, ``dicom``, ``nifti``, or ``arrays`` (``.npy``
            files). Other files are left out. With null, the kind is the first of these of which the folder has
            files. DICOM files need no suffix.
        window: centre and width of the range of values that becomes black to white in DICOM and NIfTI files, for
            example ``[40,400]`` for soft tissue in CT. With null, the window of each file is used or, if it has
            none, the range of its values.
        axis: axis of a NIfTI volume across which it is cut into slices: 0 for sagittal, 1 for coronal and 2 for
            axial slices, whatever the order in which the file stores them.
        slices: first slice of each DICOM or NIfTI file, and the slice after the last, counted from 0, for example
            ``[40,60]``. With null, all slices are images.

    Raises:
        UserError: the path does not exist, is not a folder or zip file, contains no image that can be decoded, does
            not have the layout, or, with ``on_error="refuse"``, contains an image that cannot be decoded; or the
            options do not fit the files.
    """
    root = storage.expanded(path)
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip file. Check the path.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(
            f"dataset.path={path}: the file is not a zip file. Choose a folder or zip file of images, for example "
            "dataset.path=photos."
        )
    listing = list_files(root, on_error, files)
    scanning, skipped = _scanning(listing, window, axis, slices, path), Skipped()
    reading, notes, shown = _read(root, listing, scanning, layout, hold_out, path, on_error, skipped)
    passed_over = listing.passed_over + reading.passed_over
    if not reading.training:
        raise UserError(_no_images(path, files, passed_over, skipped))
    x = features.Image(*sides(resolution), channels, bits)
    images, held_out = reading.training, reading.held_out
    classes = tuple(reading.classes)
    # Earlier versions read pictures only, and held out no share of them.
    comparable = listing.kind == "pictures" and not hold_out
    alike = not comparable or _read_alike(listing, reading, path)
    opened = scans.opener(listing.kind, x, scanning)
    if must_stream((len(images) + len(held_out)) * math.prod(x.shape) * bits // 8, stream):
        source = Files(root, reading, x, on_error, opened, shown, _options(listing, scanning))
        if skipped.count:
            passed_over["files that cannot be read"] = skipped.count
        if held_out:
            passed_over["held-out images, because the data are streamed"] = len(held_out)
        return Dataset(
            name=f"{root.name} ({len(images)} images, streamed)",
            spec=spec_of(x, len(classes) or None),
            examples=source,
            flip=flip,
            class_names=classes,
            passed_over=passed_over,
            notes=notes,
            earlier=(source.earlier_fingerprint(),) if comparable and alike else (),
            hint="" if alike else _RENUMBERED,
            duplicates=duplicates,
            canaries=canaries,
        )
    decoded, labels = _decoded(root, images, reading.labels, opened, shown, on_error, skipped)
    if not decoded:
        raise UserError(none_decoded(path, len(images), skipped.reason))
    if layout == "earlier":
        labels, classes = _without_empty_classes(labels, classes)
    tests, test_labels = _decoded(root, held_out, reading.held_out_labels, opened, shown, on_error, skipped)
    if skipped.count:
        passed_over["images that cannot be decoded"] = skipped.count
    return Dataset(
        name=f"{root.name} ({len(decoded)} images{f', {skipped.count} skipped' if skipped.count else ''})",
        spec=spec_of(x, len(classes) or None),
        examples=_arrays(decoded, labels if classes else None),
        held_out=_arrays(tests, test_labels) if tests else None,
        flip=flip,
        class_names=classes,
        passed_over=passed_over,
        notes=notes,
        hint="" if not comparable or (alike and len(set(labels or ())) == len(classes)) else _RENUMBERED,
        duplicates=duplicates,
        canaries=canaries,
    )


def _scanning(listing: Listing, window: Window | None, axis: int, slices: Slices | None, path: str) -> Scanning:
    """The options of DICOM and NIfTI files.

    Raises:
        UserError: an option of some files is set for other files, the range of slices is empty, or the package
            that reads the files is not installed.
    """
    for name, value in (("window", window), ("slices", slices)):
        if value is not None and listing.kind not in SCANS:
            raise UserError(
                f"dataset.{name}={list(value)}: an option of DICOM and NIfTI files, but the images of {path} are "
                f"{listing.kind}. Set dataset.{name}=null, or choose the kind of files, e.g. dataset.files=dicom."
            )
    if axis != _AXIAL and listing.kind != "nifti":
        raise UserError(
            f"dataset.axis={axis}: an option of NIfTI volumes, but the images of {path} are {listing.kind}. Set "
            f"dataset.axis={_AXIAL}, its default, or dataset.files=nifti."
        )
    if slices is not None and slices[0] >= slices[1]:
        raise UserError(
            f"dataset.slices={list(slices)}: contains no slice. State the first slice and the slice after the "
            "last, for example dataset.slices=[40,60]."
        )
    scans.check_installed(listing.kind, path)
    return Scanning(
        None if window is None else (window[0], window[1]), axis, None if slices is None else (slices[0], slices[1])
    )


def _read(
    root: Path,
    listing: Listing,
    scanning: Scanning,
    layout: Layout | None,
    hold_out: float,
    path: str,
    on_error: str,
    skipped: Skipped,
) -> tuple[Reading, tuple[str, ...], Callable[[File], str]]:
    """The reading of a listing, notes about its files, and a function that returns the name of a file in messages.

    In place of DICOM and NIfTI files, the reading contains their slices.
    """
    if listing.kind not in SCANS:
        reading = read(listing, layout, path)
        if hold_out and reading.training:
            reading = held_out_share(reading, hold_out, lambda file: file.name, "images")
        notes = (reading.note, _headers(root, reading.training))
        return reading, tuple(filter(None, notes)), lambda file: printable(file.name)
    found = scans.survey(root, listing, scanning, on_error, skipped)
    reading, about_classes = scans.without_patients_as_classes(read(listing, layout, path), layout, found)
    if hold_out and reading.training:
        people = scans.PATIENTS[listing.kind]
        reading = held_out_share(reading, hold_out, lambda file: found.patients[file.member], people)
    files = reading.training
    reading = scans.expanded(reading, found, scanning)
    if files and not reading.training:
        depth = max(depth for depth, _ in found.counts.values())
        raise UserError(
            f"dataset.slices={list(scanning.slices or ())}: no file has these slices, because the files have at "
            f"most {depth}. Choose slices from 0 to {depth}."
        )
    return reading, tuple(filter(None, (reading.note, *found.notes(reading), about_classes))), found.shown


def _options(listing: Listing, scanning: Scanning) -> tuple[object, ...]:
    """The options that change the images of a streamed folder, for its fingerprint."""
    return (scanning,) if listing.kind in SCANS else ()


def _no_images(path: str, kind: FileKind | None, passed_over: Counter[str], skipped: Skipped) -> str:
    others = "".join(f"; there are {count:,} {kind}" for kind, count in passed_over.most_common(3))
    if skipped.count:
        others = f"; {skipped.count:,} files cannot be read{others}"
    noun = "images" if kind is None else f"{SCANS[kind][0]} images" if kind in SCANS else kind
    suffixes = [suffix for one in (KINDS if kind is None else (kind,)) for suffix in KINDS[one]]
    return (
        f"dataset.path={path}: there are no {noun} in the folder or zip file{others}. Choose a folder or zip file "
        f"with files of these types: {', '.join(suffixes)}."
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
    opened: Callable[[bytes], Opened],
    shown: Callable[[File], str],
    on_error: str,
    skipped: Skipped,
) -> tuple[list[np.ndarray], list[int] | None]:
    """A pair of lists: the images that can be decoded, and their labels."""
    images, kept = [], []

    def skip(file: File, error: BadImage) -> None:
        if on_error == "refuse":
            raise UserError(refusal(shown(file), error)) from error
        skipped.add(shown(file), error)

    groups = [list(group) for _, group in itertools.groupby(range(len(files)), lambda i: files[i].member)]
    contents = contents_of(root, [files[group[0]] for group in groups])
    for group, (_, content) in zip(groups, contents, strict=True):
        try:
            if isinstance(content, BadImage):
                raise content
            image = opened(content)
        except BadImage as error:
            skip(files[group[0]]._replace(part=None), error)
            continue
        for i in group:
            try:
                images.append(image(files[i].part))
                kept.append(i)
            except BadImage as error:
                skip(files[i], error)
    return images, None if labels is None else [labels[i] for i in kept]


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
