"""Divides the images of a folder or zip file into two domains, or into pairs side by side."""

from __future__ import annotations

import itertools
import logging
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from gan_cli.data.images import SUFFIXES
from gan_cli.data.layout import File, list_files, natural, printable, some
from gan_cli.data.scans import check_installed, patients_of
from gan_cli.errors import UserError
from gan_cli.storage import files as storage

log = logging.getLogger(__name__)

DOMAINS = ("a", "b")
PAIR = "pair"  # stands for a domain if each file contains both images of a pair, side by side
# Names of folders, in lower case, and the splits that they contain.
_SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


class Entry(NamedTuple):
    """An image file of a domain.

    Attributes:
        file: the file.
        key: path below the folders of the split and the domain, without the suffix. The images of a pair have
            the same key.
        group: the first folder of this path, which may be a class, or None.
    """

    file: File
    key: str
    group: str | None


Entries = Mapping[str, Sequence[Entry]]  # by domain: "a" and "b", or "pair"
Rows = Sequence[tuple[Entry, ...]]  # the files of each example: an image, the two images of a pair, or one of both


class Division(NamedTuple):
    """The division of image files into domains and splits.

    Attributes:
        root: the folder or zip file.
        training: the training images of each domain, sorted by name.
        held_out: the held-out images of each domain, sorted by name. None if no folders hold out images.
        passed_over: mapping from the kinds of files that are left out to their numbers.
        note: description of the domains and splits.
        order: mapping from the members of the folder or zip file to their numbers in the order of their names, from
            1.
        patients: mapping from the members of the folder or zip file to the patients, for DICOM files. Never to be
            stored. Empty for other files.
    """

    root: Path
    training: Entries
    held_out: Entries | None
    passed_over: Counter[str]
    note: str
    order: Mapping[str, int]
    patients: Mapping[str, str]

    @property
    def private(self) -> bool:
        """Whether files and folders may have the names of patients, as folders of DICOM files do."""
        return bool(self.patients)

    def shown(self, file: File) -> str:
        """The name of a file in messages. A number replaces a name that may name a patient."""
        if self.private:
            return f"file {self.order[file.member]:,} of {len(self.order):,} in the order of their names"
        return printable(file.name)


def divide(path: str, names: Sequence[str], on_error: str, pairs: bool) -> Division:
    """Lists the images of two domains in a folder or zip file.

    The folders of the domains are ``trainA`` and ``trainB``, ``train/A`` and ``train/B``, ``A/train`` and
    ``B/train``, or ``A`` and ``B``, in upper or lower case.

    Args:
        path: the value of ``dataset.path``.
        names: the names of the domains, e.g. ``("A", "B")``.
        on_error: the value of ``dataset.on_error``.
        pairs: whether images in ``train``, or images without folders, contain the images of a pair side by side.

    Raises:
        UserError: the path does not exist, or the files do not have one of the layouts.
    """
    root = storage.expanded(path)
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or zip file. Check the path.")
    if not root.is_dir() and not zipfile.is_zipfile(root):
        raise UserError(
            f"dataset.path={path}: the file is not a zip file. Choose a folder or zip file with images of two "
            "domains."
        )
    if len({name.lower() for name in names} - {""}) < 2 or set(map(str.lower, names)) & set(_SPLITS):
        raise UserError(
            f"dataset.domains=[{','.join(names)}]: the folders of the domains must have two different names, and "
            "not names of splits. Set e.g. dataset.domains=[photos,paintings]."
        )
    listing = list_files(root, on_error)
    if not listing.files:
        others = "".join(f"; there are {count:,} {kind}" for kind, count in listing.passed_over.most_common(3))
        raise UserError(
            f"dataset.path={path}: there are no images in the folder or zip file{others}. Choose a folder or zip "
            f"file with files of these types: {', '.join(SUFFIXES)}."
        )
    if listing.kind == "nifti":
        raise UserError(
            f"dataset.path={path}: contains NIfTI files, which only dataset=folder reads. Save the slices as PNG "
            "files of 16 bits or as .npy files."
        )
    found = _parsed(listing.files, names)
    splits = {split for split, domain in found if domain is not None}
    kept = {at: entries for at, entries in found.items() if at[1] in DOMAINS}
    if not kept:
        kept = _side_by_side(found, path, names, pairs)
    training, held_out, unused = _chosen_splits(kept, path)
    words = "pairs side by side" if PAIR in training else f"folders of {' and '.join(names)}"
    for domain, name in zip(DOMAINS, names, strict=True):
        if PAIR not in training and not training.get(domain):
            first = "train" if "train" in splits else ""
            raise UserError(
                f"dataset.path={path}: there are no training images of the domain {name}. Put them into the folder "
                f"{first}{name}, or name the folders of the domains with dataset.domains=[{','.join(names)}]."
            )
    passed_over = listing.passed_over + Counter(unused)
    outside = sum(len(entries) for at, entries in found.items() if at not in kept)
    if outside:
        passed_over["images outside of the domains and splits"] = outside
    note = words if held_out is None else f"{words}, {_counts(held_out, names)} held out"
    for domain, name in zip(DOMAINS, names, strict=True):
        if held_out and PAIR not in held_out and not held_out.get(domain):
            note += f"; no images of {name} are held out, so that metrics use its training images"
    patients = {}
    if listing.kind == "dicom":
        check_installed("dicom", path)
        patients = patients_of(root, listing.files)
        both = _patients(training or {}, patients) & _patients(held_out or {}, patients)
        if both:
            note += f"; images of {len(both):,} patient{'s' * (len(both) > 1)} are both in training and held out"
    order = {file.member: i for i, file in enumerate(listing.files, 1)}
    return Division(root, training, held_out, passed_over, note, order, patients)


def _patients(entries: Entries, patients: Mapping[str, str]) -> set[str]:
    return {patients[entry.file.member] for of_domain in entries.values() for entry in of_domain} - {""}


def _parsed(files: Sequence[File], names: Sequence[str]) -> dict[tuple[str | None, str | None], list[Entry]]:
    """The image files by split and domain, each of which is None for files outside of such folders."""
    paths = [PurePosixPath(file.name).parts for file in files]
    while len({path[0] for path in paths}) == 1 and all(
        len(path) > 1 and _place(path, names)[:2] == (None, None) for path in paths
    ):
        paths = [path[1:] for path in paths]
    found: dict[tuple[str | None, str | None], list[Entry]] = {}
    for file, path in zip(files, paths, strict=True):
        split, domain, rest = _place(path, names)
        key = PurePosixPath(*rest).with_suffix("").as_posix()
        found.setdefault((split, domain), []).append(Entry(file, key, rest[0] if len(rest) > 1 else None))
    return found


def _place(path: Sequence[str], names: Sequence[str]) -> tuple[str | None, str | None, Sequence[str]]:
    """The split and the domain of a path, each of which may be None, and the rest of the path."""
    of = {name.lower(): domain for name, domain in zip(names, DOMAINS, strict=True)}
    first, second = (part.lower() if len(path) > i + 1 else "" for i, part in enumerate((*path, "", "")[:2]))
    for word, split in _SPLITS.items():
        for name, domain in of.items():
            if first in (f"{word}{name}", f"{word}_{name}", f"{word}-{name}"):
                return split, domain, path[1:]
    if first in of:
        return (_SPLITS[second], of[first], path[2:]) if second in _SPLITS else (None, of[first], path[1:])
    if first in _SPLITS:
        return (_SPLITS[first], of[second], path[2:]) if second in of else (_SPLITS[first], None, path[1:])
    return None, None, path


def _side_by_side(
    found: Mapping[tuple[str | None, str | None], list[Entry]], path: str, names: Sequence[str], pairs: bool
) -> dict[tuple[str | None, str | None], list[Entry]]:
    """The files in splits, or all files if they are not in folders, each of which contains a pair."""
    in_splits = {at: entries for at, entries in found.items() if at[0] is not None}
    loose = {at: entries for at, entries in found.items() if all(entry.group is None for entry in entries)}
    kept = in_splits or loose
    a, b = names
    if not kept or not pairs:
        also = (
            ", or images with both pictures side by side into the folders train and test"
            if pairs
            else ". For images with both pictures side by side, choose dataset=paired"
        )
        raise UserError(
            f"dataset.path={path}: there are no folders of two domains. Put the images into the folders train{a} "
            f"and train{b}, test{a} and test{b}, or {a} and {b}{also}. For other names of the folders, set e.g. "
            "dataset.domains=[photos,paintings]."
        )
    return kept


def _chosen_splits(
    kept: Mapping[tuple[str | None, str | None], list[Entry]], path: str
) -> tuple[dict[str, list[Entry]], dict[str, list[Entry]] | None, dict[str, int]]:
    """A triple: the training images and the held-out images by domain, and the numbers of all others."""

    def of(split: str | None) -> dict[str, list[Entry]]:
        return {domain or PAIR: entries for (at, domain), entries in kept.items() if at == split}

    splits = {split for split, _ in kept}
    training = "train" if "train" in splits else None
    if training not in splits:
        raise UserError(
            f"dataset.path={path}: there are no training images, only the splits "
            f"{some(sorted(filter(None, splits)))}. Put the training images into folders whose names begin with "
            "train."
        )
    held_out = next((split for split in ("test", "val") if split in splits), None)
    unused = {
        f"images of the split {split}" if split else "images outside of the splits": sum(
            map(len, of(split).values())
        )
        for split in splits - {training, held_out}
    }
    return of(training), of(held_out) if held_out else None, unused


def _counts(entries: Entries, names: Sequence[str]) -> str:
    nouns = {domain: f"images of {name}" for domain, name in zip(DOMAINS, names, strict=True)} | {PAIR: "pairs"}
    return " and ".join(f"{len(found):,} {nouns[domain]}" for domain, found in entries.items()) or "none"


def matched(
    division: Division, entries: Entries, names: Sequence[str], path: str, on_error: str
) -> list[tuple[Entry, ...]]:
    """The pairs of images with equal names, sorted by name. Files with pictures side by side are rows of one entry.

    Args:
        division: the folder or zip file, whose ``passed_over`` counts the images that are left out.
        entries: the images by domain.
        names: the names of the domains.
        path: the value of ``dataset.path``.
        on_error: treatment of images without a partner: ``refuse``, or ``skip``, which leaves them out.

    Raises:
        UserError: an image has no partner and ``on_error`` is ``refuse``, or two images of a domain have one name.
    """
    if PAIR in entries:
        return [(entry,) for entry in entries[PAIR]]
    of = [_by_key(division, entries.get(domain, ()), path) for domain in DOMAINS]
    common = of[0].keys() & of[1].keys()
    alone = [division.shown(entry.file) for found in of for key, entry in found.items() if key not in common]
    if alone:
        counts = " and ".join(f"{len(found):,} of {name}" for found, name in zip(of, names, strict=True))
        problem = f"{len(alone):,} of the images ({counts}) have no partner of the same name in the other domain"
        if on_error == "refuse":
            raise UserError(
                f"dataset.path={path}: {problem}: {some(alone)}. Add the missing images, remove these images, or "
                "set dataset.on_error=skip to leave them out."
            )
        log.warning("%s: %s and are left out: %s", path, problem, some(alone))
        division.passed_over["images without a partner"] += len(alone)
    return [(entry, of[1][key]) for key, entry in of[0].items() if key in common]


def _by_key(division: Division, entries: Iterable[Entry], path: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if (other := found.setdefault(entry.key, entry)) is not entry:
            both = some([division.shown(other.file), division.shown(entry.file)])
            raise UserError(
                f"dataset.path={path}: the images {both} differ in the suffix only, so that their partner is "
                "ambiguous. Remove one of them."
            )
    return found


def class_folders(division: Division, names: Sequence[str], labelled: bool | None, path: str) -> tuple[str, ...]:
    """The folders inside the folders of the domains, which are the classes. Empty for images without classes.

    Args:
        division: the images.
        names: the names of the domains.
        labelled: the value of ``dataset.labelled``. With None, images have classes if every image of both domains
            is in one of at least two folders. Folders of DICOM files may have the names of patients, so that only
            True makes them classes.
        path: the value of ``dataset.path``.

    Raises:
        UserError: the domains have different classes, or no classes although ``labelled`` is True.
    """
    folders_of = [{entry.group for entry in entries} for entries in division.training.values()]
    found = [
        sorted(filter(None, one), key=natural) if None not in one and len(one) > 1 else [] for one in folders_of
    ]
    if labelled is False or (labelled is None and (division.private or not all(found))):
        return ()
    if not all(found):
        raise UserError(
            f"dataset.labelled=true: not every training image in {path} is in one of at least two class folders, "
            f"e.g. train{names[0]}/cats and train{names[0]}/dogs. Make these folders, or set dataset.labelled=null."
        )
    if len(found) > 1 and found[0] != found[1]:
        differ = sorted(set(found[0]) ^ set(found[1]), key=natural)
        folders = f"{len(differ):,} of the folders" if division.private else some(differ)
        raise UserError(
            f"dataset.path={path}: the domains {names[0]} and {names[1]} have different class folders; only one of "
            f"them has {folders}. Give both the same folders, or set dataset.labelled=false to ignore them."
        )
    return tuple(map(printable, found[0]))


def labels_of(rows: Sequence[Entry], classes: Sequence[str]) -> np.ndarray | None:
    """The class of each image, int32 ``[n]``. None without classes, or if an image has none of them."""
    numbers = {name: i for i, name in enumerate(classes)}
    found = [numbers.get(printable(entry.group or "")) for entry in rows]
    return None if not classes or None in found else np.array(found, np.int32)


def class_names(division: Division, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of class folders in a run. Numbers replace names that may name patients."""
    return tuple(map(str, range(len(classes)))) if division.private else tuple(classes)


def divided(division: Division, parts: Mapping[str, Rows], share: float) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """A pair: the training examples and the held-out examples of each part.

    Of pictures, ``share`` of each part is held out, evenly spaced. Of DICOM files, all images of ``share`` of the
    patients are held out, of one patient at least, unless a part would have no other images. Patients whose images
    form a pair count as one.

    Args:
        division: the folder or zip file.
        parts: mapping from names to the files of each example, e.g. the images of each domain.
        share: the value of ``dataset.hold_out``.
    """
    if not division.private:
        chosen = {name: _evenly_spaced(len(rows), share) for name, rows in parts.items()}
    else:
        first: dict[str, str] = {}  # the first patient of the pairs of each patient

        def group(patient: str) -> str:
            while (other := first.setdefault(patient, patient)) != patient:
                patient = other
            return patient

        of_rows = {
            name: [[patient for entry in row if (patient := division.patients[entry.file.member])] for row in rows]
            for name, rows in parts.items()
        }
        for patients in (patients for rows in of_rows.values() for patients in rows):
            for patient in patients:
                first[group(patient)] = group(patients[0])
        groups = sorted({group(patient) for patient in first})
        held_out = set(itertools.compress(groups, _evenly_spaced(len(groups), share, int(share > 0))))
        chosen = {
            name: np.array([bool(row) and group(row[0]) in held_out for row in rows], bool)
            for name, rows in of_rows.items()
        }
        if any(of_part.all() for of_part in chosen.values()):  # training needs images of each domain
            chosen = {name: np.zeros_like(of_part) for name, of_part in chosen.items()}

    def of(side: bool) -> dict[str, Rows]:
        return {
            name: [row for row, held in zip(rows, chosen[name], strict=True) if held == side]
            for name, rows in parts.items()
        }

    return of(False), of(True)


def _evenly_spaced(count: int, share: float, least: int = 0) -> np.ndarray:
    """Whether each of ``count`` is chosen: ``share`` of them, ``least`` to all but one, bool ``[count]``."""
    chosen = np.zeros(count, bool)
    number = min(max(round(count * share), least), count - 1)
    chosen[(np.arange(number) * count + count // 2) // max(number, 1)] = True
    return chosen
