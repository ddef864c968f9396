"""Files of clips: animated pictures (GIF, PNG, WebP), MP4 files and folders of frames."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from gan_cli.data.images import FORMATS, MAX_PIXELS, SUFFIXES, BadImage, fitted
from gan_cli.data.layout import natural, printable
from gan_cli.errors import UserError

MOVIES = (".gif", ".mp4")  # files that are clips in any folder
_EITHER = (".png", ".webp")  # files that are clips if they are animated, else frames
OUTSIDE = "pictures outside of a folder of frames"
_RATE = 10  # frames per second of the MP4 files that this module writes


class Recording(NamedTuple):
    """A file with frames, or a folder of pictures that are the frames.

    Attributes:
        name: the name in messages, a relative path.
        path: the file or folder.
        frames: the files of a folder of frames, in their order. Empty for a file.
    """

    name: str
    path: Path
    frames: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """Number of bytes of all files."""
        return sum(file.stat().st_size for file in self.frames or (self.path,))


def need_av(source: str) -> None:
    """Raise a UserError that begins with ``source`` if the package for MP4 files is not installed."""
    if importlib.util.find_spec("av") is None:
        raise UserError(f"{source}: MP4 files need the package av. Install it: pip install 'gan_cli[video]'.")


def list_recordings(root: Path) -> tuple[list[Recording], Counter[str]]:
    """A pair: the recordings in a folder and its sub-folders, by name, and the numbers of other files by kind.

    GIF and MP4 files are recordings. PNG and WebP files are recordings at the top of the folder if they are
    animated or damaged, and in a sub-folder whose first such file is animated. Otherwise, the pictures of a
    sub-folder are the frames of one recording.
    """
    found, others = list[Recording](), Counter[str]()
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(parent)
        files = [here / name for name in sorted(names, key=natural) if not name.startswith(".")]
        movies = [file for file in files if file.suffix.lower() in MOVIES]
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES and file not in movies]
        either = [file for file in pictures if file.suffix.lower() in _EITHER]
        others["other files"] += len(files) - len(movies) - len(pictures)
        if here == root or (either and _frame_count(either[0]) > 1):
            animated = [file for file in either if here != root or _frame_count(file) != 1]
            movies += animated
            others[OUTSIDE] += len(pictures) - len(animated)
        elif pictures:
            found.append(Recording(printable(here.relative_to(root).as_posix()), here, tuple(pictures)))
        found += [Recording(printable(file.relative_to(root).as_posix()), file) for file in movies]
    return sorted(found, key=lambda one: natural(one.name)), Counter({k: n for k, n in others.items() if n})


def length(recording: Recording) -> int:
    """Number of frames.

    Raises:
        BadImage: the file cannot be read, is no video, or the frames of a folder differ in size.
    """
    with _decoding():
        if recording.frames:
            sizes = {_size(file) for file in recording.frames}
            if len(sizes) > 1:
                (a, b), (c, d), *_ = sorted(sizes)
                raise BadImage(f"its frames differ in size, e.g. {a} x {b} and {c} x {d} pixels")
            return len(recording.frames)
        if recording.path.suffix.lower() == ".mp4":
            import av

            with av.open(str(recording.path)) as container:
                stream = container.streams.video[0]
                return stream.frames or sum(packet.pts is not None for packet in container.demux(stream))
        with _opened(recording.path) as image:
            count: int = getattr(image, "n_frames", 1)
            if count < 2:
                raise BadImage("a picture with a single frame")
            return count


def read(recording: Recording, numbers: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """A clip: frames of a recording in uint8 ``[len(numbers), height, width, channels]``.

    Args:
        recording: the recording.
        numbers: increasing numbers of the frames, counted from 0.
        shape: height, width and number of channels, to which frames are resized and cropped as images are.

    Raises:
        BadImage: the recording cannot be read, has fewer frames, or its frames differ in size.
    """
    return next(read_all(recording, [numbers], shape))


def read_all(
    recording: Recording, clips: Sequence[Sequence[int]], shape: tuple[int, int, int]
) -> Iterator[np.ndarray]:
    """Yields clips of a recording as ``read`` does, in one pass through the recording.

    Args:
        recording: the recording.
        clips: the numbers of the frames of each clip, which increase from clip to clip too.
        shape: height, width and number of channels.

    Raises:
        BadImage: as ``read``, at the first clip that cannot be read.
    """
    frames = _frames(recording, [number for numbers in clips for number in numbers])
    for numbers in clips:
        with _decoding():
            clip = _clip(frames, numbers, shape)
        yield clip


def mp4(frames: Sequence[Image.Image]) -> bytes:
    """An MP4 file (H.264) with RGB frames of one size, at 10 frames per second. Odd sides lose one pixel."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=_RATE, options={"crf": "12"})
        stream.width, stream.height = (side - side % 2 for side in frames[0].size)
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            cropped = frame.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(cropped), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _clip(frames: Iterator[Image.Image], numbers: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """The next frames, resized and cropped."""
    fitting, size = list[np.ndarray](), None
    for number in numbers:
        frame = next(frames)
        if size not in (None, frame.size):
            raise BadImage(f"frame {number} has {frame.width} x {frame.height} pixels, unlike the frames before")
        size = frame.size
        fitting.append(fitted(frame, shape))
    return np.stack(fitting)


def _frames(recording: Recording, numbers: Sequence[int]) -> Iterator[Image.Image]:
    """The frames with increasing numbers. A frame is valid until the next one is read."""
    if recording.frames:
        for number in numbers:
            yield _loaded(recording.frames[number])
    elif recording.path.suffix.lower() == ".mp4":
        wanted, last = set(numbers), -1
        for last, frame in _decoded(recording.path, numbers[0]):
            if last in wanted:
                yield frame.to_image()
        raise BadImage(f"it has {last + 1} frames, and frame {numbers[-1]} is needed")
    else:
        with _opened(recording.path) as image:
            for number in numbers:
                image.seek(number)  # decodes the frames before it, on which it depends
                yield image


def _decoded(path: Path, first: int) -> Iterator[tuple[int, Any]]:
    """The frames of an MP4 file from the number ``first`` on, each with its number."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start: int | None = None
        if first:
            times = _times(path, path.stat().st_mtime_ns)
            if first >= len(times):
                raise BadImage(f"it has {len(times)} frames, and frame {first} is needed")
            start, key = times[first]
            container.seek(key, stream=stream)
        frames: Iterator[Any] = container.decode(stream)
        frames = (frame for frame in frames if start is None or frame.pts >= start)
        for number, frame in enumerate(frames, first):
            if frame.width * frame.height > MAX_PIXELS:
                raise BadImage(f"{frame.width} x {frame.height} pixels exceed the limit of {MAX_PIXELS:,}")
            yield number, frame


@functools.lru_cache(1024)
def _times(path: Path, changed: int) -> list[tuple[int, int]]:
    """Of each frame of an MP4 file, when it is shown, and when the last key frame up to it is decoded.

    No frame is decoded. A frame rate would not give the times, because the distances of frames may vary.

    Args:
        path: the file.
        changed: when the file was last changed, so that the times of an earlier file are not used.
    """
    import av

    with av.open(str(path)) as container:
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.pts is not None and not packet.is_discard
        ]
    times, key = list[tuple[int, int]](), 0
    for shown, decoded, is_key in sorted(packets):
        if is_key and decoded is not None:
            key = decoded
        times.append((shown, key))
    return times


def _loaded(file: Path) -> Image.Image:
    with _opened(file) as image:
        image.load()
        return image


def _size(file: Path) -> tuple[int, int]:
    with _opened(file) as image:
        return image.size


def _frame_count(file: Path) -> int:
    """Number of frames of a picture; 0 if it cannot be read."""
    try:
        with _decoding(), _opened(file) as image:
            return int(getattr(image, "n_frames", 1))
    except BadImage:
        return 0


def _opened(file: Path) -> Image.Image:
    image: Image.Image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadImage(f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,}")
    return image


class _decoding:
    """Context manager that turns the exceptions of decoders into ``BadImage``."""

    def __enter__(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, BadImage | UserError):
            known = isinstance(error, UnidentifiedImageError)
            reason = "not a video of a known format" if known else f"{type(error).__name__}: {error}"
            raise BadImage(reason) from error
