"""Provenance marks: the origin that a generated file states in its metadata, and the hash of its content.

A mark is a JSON object. PNG files contain it as the text ``Comment``, beside the IPTC digital source type as XMP.
GIF files contain it as a comment, ``.npz`` files as the comment of the archive, ``.npy`` files after the array, and
Parquet files under the key ``provenance``. The mark of any other file, such as CSV, is a file beside it,
``NAME.provenance.json``.

A mark contains no time, path, user or host, so that equal samples are equal files. Nothing in a mark is signed.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from gan_cli.storage import files

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"provenance"  # of the metadata of a Parquet file
BESIDE = ".provenance.json"
_SOFTWARE = "gan_cli"
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype"
# The vocabulary of the IPTC has no term for data that are no media; the C2PA specification adds this one.
_DATA = "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="{}"/></rdf:RDF></x:xmpmeta>'
)
_EMBEDDED = (".png", ".gif", ".npy")  # formats whose finished content receives the mark
_AFTER_HEADER = 33  # bytes of the signature and of the header of a PNG file
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Origin:
    """The origin of a generated file.

    Attributes:
        run: name of the run's directory, without the path to it.
        fingerprint: the entry ``fingerprint`` of the run's ``run.json``; None if the file lacks it, or if the seed
            of the run is secret.
        step: step of the checkpoint.
        seed: seed of the samples; None if it is secret.
        mixed: whether the file also contains or shows real examples.
    """

    run: str
    fingerprint: str | None
    step: int
    seed: int | None
    mixed: bool = False


class Verdict(NamedTuple):
    """The result of the verification of a file.

    Attributes:
        mark: the mark of the file; None without a mark.
        fits: whether the hash in the mark is that of the content.
    """

    mark: dict[str, Any] | None
    fits: bool


def origin_of(run: Path, fingerprint: Any, step: int, seed: int | None) -> Origin:
    """The origin of samples of the run in the directory ``run``."""
    return Origin(run.resolve().name, fingerprint if isinstance(fingerprint, str) else None, step, seed)


def write(path: Path, content: bytes, origin: Origin | None) -> None:
    """Write a generated file atomically, with its mark inside (PNG, GIF, ``.npy``) or beside it.

    Args:
        path: the path, whose suffix states the format.
        content: the content of the file without a mark.
        origin: the origin that the mark states. None writes no mark.
    """
    if origin is not None and path.suffix in _EMBEDDED:
        content = embedded(content, path.suffix, origin)
    files.write_bytes(path, content)
    if path.suffix not in _EMBEDDED:
        write_beside(path, hashlib.sha256(content).hexdigest(), origin)


def embedded(content: bytes, suffix: str, origin: Origin) -> bytes:
    """The content of a PNG, GIF or ``.npy`` file with a mark inside."""
    embed = {".png": _in_png, ".gif": _in_gif, ".npy": _in_npy}[suffix]
    kind = "array" if suffix == ".npy" else "pixels"
    return embed(content, _mark(kind, _digest(io.BytesIO(content), suffix), origin))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], origin: Origin | None) -> None:
    """Write arrays to an ``.npz`` file atomically. All names are allowed, also ``file``, unlike in ``numpy.savez``.

    Args:
        path: the path of the file.
        arrays: the arrays by name.
        origin: the origin that the mark states. None writes no mark.
    """

    def fill(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                digest.update(_member(f"{name}.npy"))
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(_Tee(entry, digest), np.asarray(array), allow_pickle=False)
            if origin is not None:
                archive.comment = _text(_mark("arrays", digest.hexdigest(), origin))

    files.write(path, fill)


def write_beside(path: Path, digest: str, origin: Origin | None) -> None:
    """Write the mark of the file ``path`` beside it, or remove an earlier mark if ``origin`` is None.

    Args:
        path: the file.
        digest: SHA-256 of the bytes of the file, after decompression.
        origin: the origin that the mark states, or None.
    """
    beside = path.with_name(path.name + BESIDE)
    if origin is None:
        beside.unlink(missing_ok=True)
    else:
        files.write_json(beside, _mark("bytes", digest, origin))


def parquet_metadata(digest: RowDigest, origin: Origin) -> dict[bytes, bytes]:
    """The entry of the metadata of a Parquet file with the rows of ``digest``."""
    return {KEY: _text(_mark("rows", digest.hexdigest(), origin))}


class RowDigest:
    """SHA-256 of the rows of a table, as CSV text with a header that ``pyarrow.csv`` writes, all values in quotes.

    The digest does not depend on how the rows are divided into parts, and differs if a name, a value, the order of
    the columns or the order of the rows differs. Times in seconds count as times in milliseconds, because Parquet
    has no times in seconds.
    """

    def __init__(self) -> None:
        self._digest, self._header = hashlib.sha256(), True

    def update(self, table: pa.Table | pa.RecordBatch) -> None:
        """Add rows."""
        import pyarrow as pa
        import pyarrow.csv

        kinds = [
            pa.timestamp("ms", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "s" else kind
            for kind in table.schema.types
        ]
        table = table.cast(pa.schema(list(zip(table.schema.names, kinds, strict=True))))
        options = pa.csv.WriteOptions(include_header=self._header, quoting_style="all_valid")
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(table, sink, options)
        self._digest.update(sink.getvalue())
        self._header = False

    def hexdigest(self) -> str:
        """The digest of the rows so far, in hexadecimal digits."""
        return self._digest.hexdigest()


def verify(path: Path) -> Verdict:
    """Read the mark of a file, and compare the hash in it with the content.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged.
    """
    try:
        mark = _read(path)
        if mark is None:
            return Verdict(None, False)
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return Verdict(mark, mark.get("sha256") == _of_parquet(path))
        with path.open("rb") if suffix in (*_EMBEDDED, ".npz") else _decompressed(path) as file:
            return Verdict(mark, mark.get("sha256") == _digest(file, suffix))
    except (OSError, ValueError):
        raise
    except Exception as error:  # the decoders raise many types of exceptions on damaged files
        raise ValueError(str(error) or type(error).__name__) from error


def _mark(content: str, digest: str, origin: Origin) -> dict[str, Any]:
    picture = "compositeWithTrainedAlgorithmicMedia" if origin.mixed else "trainedAlgorithmicMedia"
    return {
        "generated_by": _SOFTWARE,
        "source_type": f"{_IPTC}/{picture}" if content == "pixels" else _DATA,
        "run": origin.run,
        "fingerprint": origin.fingerprint,
        "step": origin.step,
        "seed": origin.seed,
        "with_real_examples": origin.mixed,
        "content": content,
        "sha256": digest,
    }


def _text(mark: Mapping[str, Any]) -> bytes:
    return json.dumps(mark).encode("ascii")


def _parsed(text: str | bytes | None) -> dict[str, Any] | None:
    """The mark that a text contains, or None if it is not a mark of this program."""
    try:
        mark = json.loads(text or b"null")
    except (ValueError, RecursionError):
        return None
    return mark if isinstance(mark, dict) and mark.get("generated_by") == _SOFTWARE else None


# --------------------------------------------------------------------------------------- marks inside files


def _in_png(content: bytes, mark: Mapping[str, Any]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    comment = chunk(b"tEXt", b"Comment\0" + _text(mark))
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP.format(mark["source_type"]).encode())
    return content[:_AFTER_HEADER] + comment + xmp + content[_AFTER_HEADER:]


def _in_gif(content: bytes, mark: Mapping[str, Any]) -> bytes:
    """The comment follows the global colours, because Pillow reads the comments before the first frame only."""
    flags, text = content[10], _text(mark)
    colours = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    parts = [text[start : start + 255] for start in range(0, len(text), 255)]
    comment = b"\x21\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    return b"GIF89a" + content[6 : 13 + colours] + comment + content[13 + colours :]


def _in_npy(content: bytes, mark: Mapping[str, Any]) -> bytes:
    file = io.BytesIO(content)
    np.lib.format.read_array(file, allow_pickle=False)
    return content[: file.tell()] + _text(mark) + content[file.tell() :]


def _read(path: Path) -> dict[str, Any] | None:
    """The mark inside or beside a file, or None."""
    suffix = path.suffix.lower()
    if suffix in (".png", ".gif"):
        from PIL import Image

        with Image.open(path, formats=("PNG", "GIF")) as image:
            return _parsed(image.info.get("Comment") or image.info.get("comment"))
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return _parsed(archive.comment)
    if suffix == ".npy":
        with path.open("rb") as file:
            np.lib.format.read_array(file, allow_pickle=False)
            rest = file.read(_CHUNK)
        return _parsed(rest[: rest.rfind(b"}") + 1])
    if suffix == ".parquet":
        import pyarrow.parquet as parquet

        return _parsed((parquet.read_metadata(path).metadata or {}).get(KEY))
    beside = path.with_name(path.name + BESIDE)
    return _parsed(beside.read_bytes()) if beside.is_file() else None


# --------------------------------------------------------------------------------------- hashes of content


class _Tee:
    """A file to which NumPy writes, which also updates a hash."""

    def __init__(self, file: Any, digest: Any):
        self._file, self._digest = file, digest

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)


def _digest(file: BinaryIO, suffix: str) -> str:
    """SHA-256 of the content of a file.

    - ``.png``, ``.gif``: for each frame the text ``WIDTHxHEIGHT`` and a line feed, then its pixels in 8-bit RGBA,
      row by row. Of a PNG file with 16 bits per value: its header and its inflated image data.
    - ``.npy``: the header and the values of the array, as in the file.
    - ``.npz``: for each member of the archive its name, a line feed, and its bytes.
    - any other file: its bytes, where ``file`` is already decompressed.
    """
    digest = hashlib.sha256()
    if suffix in (".png", ".gif"):
        parts = _of_picture(file.read())
    elif suffix == ".npz":
        parts = _of_archive(file)
    elif suffix == ".npy":
        np.lib.format.read_array(file, allow_pickle=False)
        length = file.tell()
        file.seek(0)
        parts = iter((file.read(length),))
    else:
        parts = iter(lambda: file.read(_CHUNK), b"")
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _of_picture(content: bytes) -> Iterator[bytes]:
    from PIL import Image, ImageSequence

    if content.startswith(b"\x89PNG") and content[24:25] == b"\x10":  # Pillow drops the low bytes of colours
        yield from _image_data(content)
        return
    with Image.open(io.BytesIO(content), formats=("PNG", "GIF")) as image:
        for frame in ImageSequence.Iterator(image):
            yield f"{frame.width}x{frame.height}\n".encode()
            yield frame.convert("RGBA").tobytes()


def _image_data(content: bytes) -> Iterator[bytes]:
    """The inflated image data of a PNG file after its header, in parts."""
    yield content[8:_AFTER_HEADER]
    inflate, at = zlib.decompressobj(), 8
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            yield inflate.decompress(content[at + 8 : at + 8 + length])
        at += length + 12
    yield inflate.flush()


def _of_archive(file: BinaryIO) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            yield _member(name)
            with archive.open(name) as member:
                yield from iter(lambda: member.read(_CHUNK), b"")


def _member(name: str) -> bytes:
    return f"{name}\n".encode()


def _of_parquet(path: Path) -> str:
    import pyarrow.parquet as parquet

    digest = RowDigest()
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            digest.update(batch)
    return digest.hexdigest()


def _decompressed(path: Path) -> BinaryIO:
    """A stream of the bytes of a file, without the compression that its suffix states."""
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        return cast(BinaryIO, archive.open(archive.namelist()[0]))
    if path.suffix == ".zst":
        import pyarrow as pa

        return cast(BinaryIO, pa.input_stream(str(path), compression="zstd"))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(BinaryIO, openers.get(path.suffix, open)(path, "rb"))
