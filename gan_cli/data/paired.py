"""Data set of pairs of images, for paired image translation."""

from __future__ import annotations

from dataclasses import replace

from gan_cli.data import translation
from gan_cli.data.dataset import Dataset
from gan_cli.data.domains import Rows, class_folders, class_names, divide, divided, labels_of, matched
from gan_cli.data.translation import Pictures
from gan_cli.errors import UserError
from gan_cli.types import Bits, Channels, Duplicates, OnError, Resolution, Share


def paired(
    *,
    path: str,
    resolution: Resolution | None = None,
    load: Resolution | None = None,
    channels: Channels | None = None,
    channels_a: Channels | None = None,
    channels_b: Channels | None = None,
    bits: Bits | None = None,
    flip: bool = False,
    on_error: OnError = "refuse",
    hold_out: Share = 0.1,
    domains: tuple[str, str] = ("A", "B"),
    labelled: bool | None = None,
    stream: bool | None = None,
    duplicates: Duplicates = "warn",
) -> Dataset:
    """Pairs of images ``a`` and ``b`` from a folder or zip file, for image translation.

    The two images of a pair have the same name in the folders ``trainA`` and ``trainB`` (or ``train/A`` and
    ``train/B``, ``A/train`` and ``B/train``, ``A`` and ``B``), or are the left and the right half of each image in
    ``train``. ``test`` instead of ``train`` contains the held-out pairs, or ``val`` if there is no ``test``.

    Args:
        path: folder or zip file with the images.
        resolution: side of the square images in pixels, or the height and width as a list, e.g. ``[24,40]``. Each
            image is resized until it covers this size, and cropped around the centre. With null, the images keep
            the size of the files, which must then be equal for all images.
        load: size of the training images, as for ``resolution``. Training cuts a random crop of ``resolution``
            from each, the same from both images of a pair. With null, training images are not cropped.
        channels: number of channels of both images: 1 for grey, 3 for RGB, 4 for RGBA, or another number, for TIFF
            and .npy files. With null, the channels of the files.
        channels_a: number of channels of the images ``a``. With null, the value of ``channels``.
        channels_b: number of channels of the images ``b``. With null, the value of ``channels``.
        bits: bits per value, 8 or 16. With null, 16 if the files of the domain have 16 bits.
        flip: whether training mirrors both images of each pair left to right with probability 1/2, independently in
            every batch.
        on_error: treatment of pairs with a missing image or an image that cannot be decoded. With ``skip``, they
            are left out. In streamed data, the next pair replaces a pair with an image that cannot be decoded.
            With ``refuse``, the command stops with an error.
        hold_out: share of the pairs that is held out if no folders hold out pairs. Of DICOM files, the share of the
            patients, all of whose images are held out.
        domains: names of the folders of ``a`` and ``b``, in upper or lower case, e.g. ``[photos,paintings]``.
        labelled: whether the folders inside the folders of the domains are classes. With null, folders are
            classes if there are at least two, and they contain every image.
        stream: whether images are decoded during training, batch by batch. If false, all images are decoded at the
            start. With null, images are decoded during training only if all decoded images take more than a quarter
            of the memory of the host or of the accelerator.
        duplicates: treatment of copied images, exact and near. ``warn`` states their numbers before training,
            ``drop`` leaves out training images that repeat another training image or a held-out image, and ``keep``
            skips the search.

    Raises:
        UserError: the files do not have one of the layouts, a domain has no images, or, with ``on_error="refuse"``,
            an image has no partner or cannot be decoded.
    """
    division = divide(path, domains, on_error, pairs=True)
    rows: Rows = matched(division, division.training, domains, path, on_error)
    tests: Rows = matched(division, division.held_out or {}, domains, path, on_error)
    if not rows:
        raise UserError(
            f"dataset.path={path}: no training image of {domains[0]} has a partner of the same name in "
            f"{domains[1]}. Give the two images of each pair the same name."
        )
    if division.held_out is None:
        kept, chosen = divided(division, {"": rows}, hold_out)
        rows, tests = kept[""], chosen[""]
    images, notes = translation.features_of(
        division, domains, path,
        (channels_a or channels, channels_b or channels), bits, resolution, load,
    )  # fmt: skip
    classes = class_folders(division, domains, labelled, path)

    def pictures(rows: Rows, load: bool) -> Pictures:
        features = images if load else {name: replace(image, load=None) for name, image in images.items()}
        labels = labels_of([row[0] for row in rows], classes)
        return Pictures(division, rows, features, "label", labels, on_error, resolution is None)

    return translation.assembled(
        division.root.name,
        {"": pictures(rows, load=True)},
        {"": pictures(tests, load=False)},
        class_names(division, classes),
        stream,
        division.passed_over,
        flip=flip,
        notes=(division.note, *notes),
        duplicates=duplicates,
    )
