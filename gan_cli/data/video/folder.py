"""Data set of the clips in a folder of videos, which are decoded when a batch needs them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_cli.data.capacity import must_stream
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.images import BadImage, sides
from gan_cli.data.streamed_folder import sample
from gan_cli.data.video import files
from gan_cli.data.video.feature import Video
from gan_cli.data.video.files import Recording
from gan_cli.errors import UserError
from gan_cli.storage import files as storage
from gan_cli.types import ClipChannels, OnError, PositiveInt, Resolution, Share

log = logging.getLogger(__name__)
_SKIPPED = "%s: the clip cannot be read (%s) and is skipped."
_WARNINGS = 10  # largest number of warnings about clips that are skipped


class Cut(NamedTuple):
    """A clip: a part of a recording, which starts with the frame ``start``."""

    recording: Recording
    start: int


def video(
    *,
    path: str,
    frames: PositiveInt = 16,
    every_nth: PositiveInt = 1,
    size: Resolution = 64,
    channels: ClipChannels = 3,
    on_error: OnError = "skip",
    hold_out: Share = 0.0,
    stream: bool | None = None,
) -> Dataset:
    """Clips from a folder of videos: GIF, animated PNG and WebP, MP4, and sub-folders of frames.

    Each video is cut into clips that do not overlap. The frames of a GIF, PNG or WebP file count once each,
    whatever their duration. A sub-folder with pictures is one video, whose frames are the pictures in the order of
    their names. MP4 files need the package av: ``pip install 'gan_cli[video]'``. Example: ``gan-train dataset=video
    dataset.path=videos model=mocogan``.

    Args:
        path: folder with the videos. Sub-folders are searched too.
        frames: number of frames of a clip.
        every_nth: distance in the video between two frames of a clip. With 2, a clip skips every second frame.
        size: side of the square frames in pixels, or the height and width as a list, e.g. ``[24,40]``. Each frame
            is resized until it covers this size, and cropped around the centre.
        channels: 1 converts all frames to greyscale, and 3 to RGB.
        on_error: treatment of files that are no video, of damaged videos, of videos whose frames differ in size,
            and of videos that are shorter than a clip. With ``skip``, they are left out. With ``refuse``, the
            command stops with an error.
        hold_out: share of the videos that training does not use, for example 0.1.
        stream: whether clips are decoded during training, batch by batch. If false, all clips are decoded at the
            start. With null, clips are decoded during training only if all decoded clips take more than a quarter
            of the memory of the host or of the accelerator.

    Raises:
        UserError: the path is no folder, contains no clip, or, with ``on_error="refuse"``, a file that is no video
            or is shorter than a clip; the package av is missing.
    """
    root = storage.expanded(path)
    if root.is_file():
        raise UserError(f"dataset.path={path}: is a file. Set its folder, dataset.path={Path(path).parent}.")
    if not root.is_dir():
        raise UserError(f"dataset.path={path}: there is no such folder. Choose a folder of videos.")
    recordings, passed_over = files.list_recordings(root)
    if any(one.path.suffix.lower() == ".mp4" for one in recordings):
        files.need_av(f"dataset.path={path}")
    shape = (*sides(size), channels)
    span = (frames - 1) * every_nth + 1
    usable, skipped = _lengths(recordings, span, on_error)
    if not usable:
        reason = f" (the first: {skipped[0]})" if skipped else ""
        remedy = "Choose another folder, or smaller dataset.frames and dataset.every_nth."
        if passed_over[files.OUTSIDE]:
            remedy = "If its pictures are the frames of a video, put them into a sub-folder, one for each video."
        raise UserError(f"dataset.path={path}: contains no video of at least {span} frames{reason}. {remedy}")
    training, tests = _held_out(list(usable), hold_out)
    feature = Video(frames, *shape)
    cuts = _cuts(training, usable, frames * every_nth, span)
    source = Clips(root, cuts, feature, every_nth, on_error)
    stored: Any = source
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not must_stream(len(cuts) * feature.size, stream):
            stored = source.decoded(pool, skipped)
        of_tests = Clips(root, _cuts(tests, usable, frames * every_nth, span), feature, every_nth, on_error)
        held_out = of_tests.decoded(pool, skipped) if tests else None
    if skipped:
        passed_over["videos that cannot be used"] += len(skipped)
    lengths = sorted(usable.values())
    extent = f"{lengths[0]}" if lengths[0] == lengths[-1] else f"{lengths[0]} to {lengths[-1]}"
    clips = len(cuts) if stored is source else len(stored["x"])
    return Dataset(
        name=f"{root.name} ({clips:,} clips{', streamed' if stored is source else ''})",
        spec=spec_of(feature),
        examples=stored,
        held_out=held_out,
        passed_over=passed_over,
        notes=(f"{len(usable):,} videos of {extent} frames",),
    )


class Clips:
    """A ``Source`` of clips, which decodes a clip at each access.

    Args:
        root: the folder of the videos.
        cuts: the clips.
        feature: the feature of a clip.
        every_nth: distance in the video between two frames of a clip.
        on_error: treatment of clips that cannot be decoded.
    """

    labels = None

    def __init__(self, root: Path, cuts: Sequence[Cut], feature: Video, every_nth: int, on_error: str):
        self._root, self._cuts, self._feature, self._every = root, cuts, feature, every_nth
        self._shape = feature.height, feature.width, feature.channels
        self._on_error, self._warned = on_error, set[int]()

    def __len__(self) -> int:
        return len(self._cuts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Clip ``i``. With ``on_error="skip"``, the next clip replaces a clip that cannot be decoded.

        Raises:
            UserError: no clip can be decoded, or ``on_error`` is ``"refuse"`` and clip ``i`` cannot be decoded.
        """
        for j in range(i, i + len(self._cuts)):
            j %= len(self._cuts)
            try:
                return {"x": self._read(self._cuts[j])}
            except BadImage as error:
                name = self._cuts[j].recording.name
                if self._on_error == "refuse":
                    raise _refusal(name, error) from error
                if j not in self._warned:
                    self._warned.add(j)
                    log.warning(_SKIPPED, name, error)
        raise UserError(f"dataset.path={self._root}: none of the {len(self._cuts)} clips can be decoded.")

    def decoded(self, pool: ThreadPoolExecutor, skipped: list[str]) -> dict[str, np.ndarray]:
        """All clips that can be decoded. The reasons of others are added to ``skipped``.

        Raises:
            UserError: no clip can be decoded, or one cannot and ``on_error`` is ``"refuse"``.
        """
        kept = list[np.ndarray]()
        of_recordings = [list(cuts) for _, cuts in groupby(self._cuts, key=lambda cut: cut.recording)]
        for cuts, clips in zip(of_recordings, pool.map(self._read_all, of_recordings), strict=True):
            for clip in clips:
                if isinstance(clip, BadImage):
                    _skip(cuts[0].recording.name, clip, self._on_error, skipped)
                else:
                    kept.append(clip)
        if not kept:
            raise UserError(f"dataset.path={self._root}: none of the {len(self._cuts)} clips can be decoded.")
        return {"x": np.stack(kept)}

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the videos, a sample of their contents, and the clips."""
        recordings = {cut.recording.name: cut.recording for cut in self._cuts}
        starts = [(cut.recording.name, cut.start) for cut in self._cuts]
        sizes = [(name, one.size) for name, one in recordings.items()]
        digest = hashlib.sha256(repr((self._feature.shape, self._every, starts, sizes)).encode())
        for one in recordings.values():
            digest.update(sample(one.frames[0] if one.frames else one.path))
        return digest.hexdigest()

    def _read(self, cut: Cut) -> np.ndarray:
        return files.read(cut.recording, self._numbers(cut), self._shape)

    def _read_all(self, cuts: Sequence[Cut]) -> list[np.ndarray | BadImage]:
        """The clips of one recording, or why they cannot be read, in one pass, which resumes after a failure."""
        found = list[np.ndarray | BadImage]()
        while len(found) < len(cuts):
            numbers = [self._numbers(cut) for cut in cuts[len(found) :]]
            try:
                for clip in files.read_all(cuts[0].recording, numbers, self._shape):
                    found.append(clip)  # kept if a later clip cannot be read
            except BadImage as error:
                found.append(error)
        return found

    def _numbers(self, cut: Cut) -> range:
        """The numbers of the frames of a clip."""
        return range(cut.start, cut.start + (self._feature.frames - 1) * self._every + 1, self._every)


def _lengths(recordings: Sequence[Recording], span: int, on_error: str) -> tuple[dict[Recording, int], list[str]]:
    """A pair: the lengths of the recordings of at least ``span`` frames, and why others are left out.

    Raises:
        UserError: ``on_error`` is ``"refuse"``, and a recording cannot be used.
    """

    def measured(one: Recording) -> int | BadImage:
        try:
            found = files.length(one)
        except BadImage as error:
            return error
        return found if found >= span else BadImage(f"it has {found} frames, and a clip spans {span}")

    usable, skipped = dict[Recording, int](), list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one, found in zip(recordings, pool.map(measured, recordings), strict=True):
            if isinstance(found, BadImage):
                _skip(one.name, found, on_error, skipped)
            else:
                usable[one] = found
    return usable, skipped


def _skip(name: str, error: BadImage, on_error: str, skipped: list[str]) -> None:
    if on_error == "refuse":
        raise _refusal(name, error) from error
    skipped.append(f"{name}: {error}")
    if len(skipped) <= _WARNINGS:
        log.warning(_SKIPPED, name, error)
    elif len(skipped) == _WARNINGS + 1:
        log.warning("Further clips that cannot be read are skipped without a warning.")


def _refusal(name: str, error: BadImage) -> UserError:
    return UserError(
        f"{name}: the clip cannot be read ({error}). Remove the file, or set dataset.on_error=skip to leave out "
        "such files."
    )


def _held_out(recordings: list[Recording], share: float) -> tuple[list[Recording], list[Recording]]:
    """A pair: the recordings of the training and of the held-out clips, always the same of the same recordings.

    Raises:
        UserError: a share of a single recording is held out.
    """
    if not share:
        return recordings, []
    if len(recordings) < 2:
        raise UserError(
            f"dataset.hold_out={share:g}: needs at least two videos, of which it holds out some. Set "
            "dataset.hold_out=0."
        )
    count = min(max(round(share * len(recordings)), 1), len(recordings) - 1)
    chosen = set(np.random.default_rng(0).permutation(len(recordings))[:count].tolist())
    return (
        [one for i, one in enumerate(recordings) if i not in chosen],
        [one for i, one in enumerate(recordings) if i in chosen],
    )


def _cuts(recordings: Iterable[Recording], lengths: dict[Recording, int], stride: int, span: int) -> list[Cut]:
    """Clips that start every ``stride`` frames, as long as ``span`` frames are left."""
    return [Cut(one, start) for one in recordings for start in range(0, lengths[one] - span + 1, stride)]
