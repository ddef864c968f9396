"""Reads DICOM files: pixel values as a viewer shows them, and in memory only, to which patient an image belongs.

No text of a header leaves this module except through ``Header``, and no message quotes one, because messages reach
log files. The package pydicom is imported at the first use.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gan_cli.data.images import MAX_PIXELS, BadImage
from gan_cli.errors import UserError

_NEEDED = "reading DICOM files needs the package pydicom. Install it: pip install 'gan_cli[medical]'."
# Fields that identify a patient. Fields with few values, such as the sex, are no names of files or folders.
_IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "PatientBirthName", "PatientBirthDate",
    "PatientMotherBirthName", "AccessionNumber", "StudyID",
)  # fmt: skip
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")


class Header(NamedTuple):
    """The facts of a DICOM image that its pixels do not contain.

    Attributes:
        frames: number of frames.
        height: number of rows.
        width: number of columns.
        channels: 1 for grey, 3 for colour.
        patient: identifies the patient: the patient ID or, if it is missing, the study. Never to be stored.
        identifying: words of the fields that identify the patient, in lower case. Never to be stored.
        annotated: whether the file states that its pixels contain text that may identify the patient.
    """

    frames: int
    height: int
    width: int
    channels: int
    patient: str
    identifying: frozenset[str]
    annotated: bool


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context without the warnings of pydicom, which may quote fields of a header."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def header(file: BinaryIO) -> Header | None:
    """The header of a DICOM file, or None if the file contains no image, e.g. a report or a structure set.

    Raises:
        UserError: pydicom is not installed.
        BadImage: the file is damaged.
    """
    pydicom = _pydicom()
    try:
        with _quiet():
            found = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            if not found.get("Rows") or not found.get("Columns"):
                if "SOPClassUID" not in found and "MediaStorageSOPClassUID" not in getattr(found, "file_meta", ()):
                    raise BadImage("not a DICOM file")
                return None
            texts = [str(found.get(name) or "") for name in _IDENTIFYING]
            ids = (found.get(name) for name in ("PatientID", "StudyInstanceUID"))
            return Header(
                max(1, int(found.get("NumberOfFrames") or 1)),
                int(found.Rows),
                int(found.Columns),
                1 if found.get("PhotometricInterpretation") in _MONOCHROME else 3,
                next((str(one).strip() for one in ids if str(one or "").strip()), ""),
                frozenset(word for text in texts for word in words(text)),
                str(found.get("BurnedInAnnotation") or "").strip().upper() == "YES",
            )
    except BadImage:
        raise
    except Exception as error:  # pydicom may raise any exception on a damaged file
        raise BadImage("its DICOM header is damaged") from error


def words(text: str) -> list[str]:
    """The words and numbers in a text, in lower case. A single letter or digit is no word."""
    return [word for word in re.split(r"[\W_]+", text.lower()) if len(word) > 1]


class Frames:
    """The frames of a DICOM file as values from 0 (black) to 1 (white).

    Values are transformed by the rescale slope and intercept, or the table that replaces them, and then mapped to
    0..1 by the window. MONOCHROME1 is inverted, and all colour models become RGB.

    Args:
        content: the content of the file.
        window: centre and width of the window. With None, the window or the table of the file is used. If the file
            has none, the range of its values is: of all values that are possible for up to 8 bits, else of those
            that occur in the file, without padding.

    Raises:
        UserError: pydicom is not installed.
        BadImage: the file is damaged, contains no image, or no installed codec reads its compression.
    """

    def __init__(self, content: bytes, window: tuple[float, float] | None = None):
        pydicom = _pydicom()
        self._window = window
        try:
            with _quiet():
                self._data = pydicom.dcmread(io.BytesIO(content), force=True)
                self._check(pydicom)
                self.count = max(1, int(self._data.get("NumberOfFrames") or 1))
        except BadImage:
            raise
        except Exception as error:  # pydicom may raise any exception on a damaged file
            raise BadImage("its DICOM header is damaged") from error

    def _check(self, pydicom: Any) -> None:
        data = self._data
        if not data.get("Rows") or not any(name in data for name in _PIXELS):
            raise BadImage("a DICOM file without an image")
        if int(data.Rows) * int(data.Columns) > MAX_PIXELS:
            raise BadImage(f"{data.Columns} x {data.Rows} pixels exceed the limit of {MAX_PIXELS:,}")
        if not hasattr(data, "file_meta") or "TransferSyntaxUID" not in data.file_meta:
            implicit, little = data.original_encoding
            uid = pydicom.uid
            data.ensure_file_meta()
            data.file_meta.TransferSyntaxUID = (
                uid.ImplicitVRLittleEndian
                if implicit
                else uid.ExplicitVRLittleEndian
                if little
                else uid.ExplicitVRBigEndian
            )
        syntax = data.file_meta.TransferSyntaxUID
        if syntax.is_compressed and not syntax.is_deflated:
            try:
                available = pydicom.pixels.get_decoder(syntax).is_available
            except NotImplementedError:
                available = False
            if not available:
                raise BadImage(_no_codec(syntax))

    def __getitem__(self, i: int) -> np.ndarray:
        """Frame ``i``, counted from 0, as float32 ``[height, width, 1 or 3]`` with values from 0 to 1."""
        try:
            with _quiet():
                return self._shown(i)
        except BadImage:
            raise
        except Exception as error:  # a codec may raise any exception on damaged pixels
            syntax = self._data.file_meta.TransferSyntaxUID
            compressed = syntax.is_compressed and not syntax.is_deflated
            raise BadImage(_no_codec(syntax) if compressed else "its pixels are damaged or incomplete") from error

    def _shown(self, i: int) -> np.ndarray:
        data, stored = self._data, self._stored(i)
        if data.get("PhotometricInterpretation") == "PALETTE COLOR":
            coloured: np.ndarray = _pydicom().pixels.apply_color_lut(stored, data)
            return (coloured / np.float64(np.iinfo(coloured.dtype).max)).astype(np.float32)
        if data.get("SamplesPerPixel", 1) == 3:
            return (stored / np.float64(2 ** int(data.BitsStored) - 1)).astype(np.float32)
        if data.get("PhotometricInterpretation") not in _MONOCHROME:
            raise BadImage("its DICOM colour model is unknown")
        shown = self._windowed(i, self._rescaled(i, stored))
        shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        return np.asarray(shown, np.float32)[..., None]

    def _stored(self, i: int) -> np.ndarray:
        stored: np.ndarray = _pydicom().pixels.pixel_array(self._data, index=i)
        return stored

    def _rescaled(self, i: int, stored: np.ndarray) -> np.ndarray:
        """Values after the rescale slope and intercept, or after the table that replaces them."""
        holder = self._of_frame(i, "PixelValueTransformationSequence")
        values: np.ndarray = _pydicom().pixels.apply_modality_lut(stored, holder)
        return values.astype(np.float64)

    def _windowed(self, i: int, values: np.ndarray) -> np.ndarray:
        if self._window is not None:
            return windowed(values, *self._window)
        holder = self._of_frame(i, "FrameVOILUTSequence")
        centre, width = (_first(holder.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centre is not None and width is not None and width > 0:
            return windowed(values, centre, width, str(holder.get("VOILUTFunction") or "LINEAR").upper())
        if holder.get("VOILUTSequence"):
            table = holder.VOILUTSequence[0]
            whole = np.rint(values).astype(np.int64)
            shown: np.ndarray = _pydicom().pixels.apply_voi(whole, holder)
            return np.clip(shown / (2.0 ** int(table.LUTDescriptor[2]) - 1), 0, 1)
        low, high = self._range
        return np.clip((values - low) / max(high - low, 1e-12), 0, 1)

    def _of_frame(self, i: int, sequence: str) -> Any:
        """The part of the file with the values of a frame: an item of an enhanced file, or the file itself."""
        for name, item in (("PerFrameFunctionalGroupsSequence", i), ("SharedFunctionalGroupsSequence", 0)):
            groups = self._data.get(name) or []
            if item < len(groups) and groups[item].get(sequence):
                return groups[item][sequence].value[0]
        return self._data

    @functools.cached_property
    def _range(self) -> tuple[float, float]:
        """The range of the values, for files without a window."""
        bits, signed = int(self._data.get("BitsStored") or 16), self._data.get("PixelRepresentation") == 1
        if bits <= 8:
            ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
            found = self._rescaled(0, ends)
            return float(found.min()), float(found.max())
        low, high, padding = np.inf, -np.inf, self._data.get("PixelPaddingValue")
        for i in range(self.count):
            stored = self._stored(i)
            kept = self._rescaled(i, stored)[np.ones(stored.shape, bool) if padding is None else stored != padding]
            if kept.size:
                low, high = min(low, float(np.nanmin(kept))), max(high, float(np.nanmax(kept)))
        return (low, high) if low <= high else (0.0, 1.0)


_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Values mapped to 0..1 by a window, as in the DICOM standard (PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: the values, in the units of the window, e.g. Hounsfield units.
        centre: the centre of the window.
        width: the width of the window.
        function: ``LINEAR``, whose ends are whole numbers, ``LINEAR_EXACT`` or ``SIGMOID``.
    """
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR" and width == 1:
        return np.asarray(values > centre - 0.5, np.float64)
    if function == "LINEAR" and width > 1:
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    """The first of the values of a field, as a number."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _no_codec(syntax: Any) -> str:
    return (
        f"no installed codec decodes its compression, {syntax.name} ({syntax}); try: pip install pylibjpeg "
        "pylibjpeg-libjpeg pylibjpeg-openjpeg"
    )


@functools.cache
def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise UserError(_NEEDED) from error
    return pydicom
