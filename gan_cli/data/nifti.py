"""Reads NIfTI files: the slices of a volume along an axis, in the orientation of the patient.

The axes of the canonical orientation (RAS+) point from left to right (0), from posterior to anterior (1) and from
inferior to superior (2). The package nibabel is imported at the first use.
"""

from __future__ import annotations

import functools
import gzip
import io
import math
import warnings
import zlib
from typing import Any, BinaryIO

import numpy as np

from gan_cli.data.dicom import windowed
from gan_cli.data.images import BadImage
from gan_cli.errors import UserError

_NEEDED = "reading NIfTI files needs the package nibabel. Install it: pip install 'gan_cli[medical]'."
_HEADER = 540  # bytes of the longer of the two kinds of headers
# Maximum size of an uncompressed volume in bytes, as a protection against decompression bombs.
MAX_VOLUME = 2 * 2**30


def slices(file: BinaryIO, axis: int) -> tuple[int, int, int, int]:
    """The number of slices of a NIfTI volume along an axis, the number of volumes, and height and width of a slice.

    Raises:
        UserError: nibabel is not installed.
        BadImage: the file is damaged, or the axis is not one of its axes.
    """
    start = file.read(4 * _HEADER)
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, _HEADER)
        except zlib.error as error:
            raise BadImage("its compression is damaged") from error
    head, _ = _header(start)
    shape = _shape(head, axis)
    _size(head)
    storage = [int(one) for one in _orientation(head)[:, 0]]
    sides = [shape[storage.index(canonical)] for canonical in range(3)]
    across, up = (side for i, side in enumerate(sides) if i != axis)
    return sides[axis], math.prod(shape[3:]), up, across


class Slices:
    """The slices of a NIfTI volume along an axis as values from 0 (black) to 1 (white).

    A slice across axis 2 (axial) shows anterior at the top, and a slice across axis 0 (sagittal) or 1 (coronal)
    superior at the top. Columns run from left to right, or from posterior to anterior: the left of the picture is
    the left of the patient. Voxels are shown as squares. The slices of all times follow each other.

    Args:
        content: the content of the file, compressed or not.
        axis: the axis of the canonical orientation.
        window: centre and width of the range of values that becomes 0..1. With None, the range is ``cal_min`` to
            ``cal_max`` of the header or, if these are not set, that of the values of the volume.

    Raises:
        UserError: nibabel is not installed.
        BadImage: the file is damaged, too large, or the axis is not one of its axes.
    """

    def __init__(self, content: bytes, axis: int, window: tuple[float, float] | None = None):
        nibabel = _nibabel()
        if content[:2] == b"\x1f\x8b":
            try:
                head, _ = _header(zlib.decompressobj(wbits=31).decompress(content, _HEADER))
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_size(head))
            except (zlib.error, OSError, EOFError) as error:
                raise BadImage("its compression is damaged") from error
        head, kind = _header(content[:_HEADER])
        shape = _shape(head, axis)
        if len(content) < _size(head):
            raise BadImage("the file is incomplete")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values: np.ndarray = np.asanyarray(kind.from_bytes(content).dataobj)
            colours = [values[name] for name in list(values.dtype.fields or {})[:3]]
            values = np.stack(colours, axis=-1) if colours else values[..., None]
            values = values.reshape(*shape[:3], -1, values.shape[-1])
            values = nibabel.apply_orientation(values, _orientation(head))
        except Exception as error:  # nibabel may raise any exception on a damaged file
            raise BadImage("its values are damaged") from error
        if values.dtype.kind not in "buif":
            raise BadImage(f"its values are of the type {values.dtype}")
        # [slices, height, width, times, channels], with the upper side first.
        self._values = np.moveaxis(values, axis, 0).swapaxes(1, 2)[:, ::-1]
        if colours:
            self._range = (0.0, 255.0)
        elif window is not None:
            self._range = (window[0] - window[1] / 2, window[0] + window[1] / 2)
        else:
            self._range = self._whole_range(float(head["cal_min"]), float(head["cal_max"]))
        self.count = self._values.shape[0] * self._values.shape[3]

    def _whole_range(self, low: float, high: float) -> tuple[float, float]:
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
        finite = self._values[np.isfinite(self._values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)

    def __getitem__(self, i: int) -> np.ndarray:
        """Slice ``i``, counted from 0, as float32 ``[height, width, 1 or 3]``. NaN and infinity become 0."""
        time, position = divmod(i, self._values.shape[0])
        low, high = self._range
        values = self._values[position, :, :, time].astype(np.float64)
        values = np.where(np.isfinite(values), values, low)
        shown = windowed(values, (low + high) / 2, max(high - low, 1e-12), "LINEAR_EXACT")
        return shown.astype(np.float32)


def _header(start: bytes) -> tuple[Any, Any]:
    """A pair: the header in the first bytes of a file, and nibabel's class of the image."""
    nibabel = _nibabel()
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                head = kind.header_class.from_fileobj(io.BytesIO(start), check=False)
            if head.get_data_shape() and head["magic"].item().startswith(b"n+"):
                head.get_data_dtype()
                return head, kind
        except Exception:  # the other kind of header, or no header at all
            continue
    raise BadImage("not a NIfTI file in one part (.nii)")


def _size(head: Any) -> int:
    """The size of the uncompressed file in bytes."""
    values = math.prod(map(int, head.get_data_shape()))
    size = int(head["vox_offset"]) + values * int(head.get_data_dtype().itemsize)
    if not 0 <= size <= MAX_VOLUME:
        raise BadImage(f"its volume is larger than {MAX_VOLUME // 2**30} GiB")
    return size


def _shape(head: Any, axis: int) -> tuple[int, ...]:
    """The shape of the volume, with at least three axes."""
    shape = tuple(map(int, head.get_data_shape()))
    if not shape or min(shape) < 1:
        raise BadImage("its volume is empty")
    if axis >= max(len(shape), 3) or (len(shape) < 3 and axis != 2):
        raise BadImage(f"it has no axis {axis}: its shape is {list(shape)}")
    return (*shape, *(1,) * (3 - len(shape)))


def _orientation(head: Any) -> np.ndarray:
    """For each stored axis, the canonical axis and the direction, 1 or -1. Stored axes are canonical by default."""
    found: np.ndarray = _nibabel().io_orientation(head.get_best_affine())
    usable = np.isfinite(found).all() and sorted(found[:, 0]) == [0, 1, 2]
    return found if usable else np.array([[0, 1], [1, 1], [2, 1]])


@functools.cache
def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UserError(_NEEDED) from error
    return nibabel
