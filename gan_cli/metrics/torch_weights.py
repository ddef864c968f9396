"""Reads files of weights that ``torch.save`` wrote, without PyTorch and without running anything in them.

Such a file is a pickle, a program that may call any function, beside raw numbers. Here it may call what makes
ordered dictionaries, and what describes a tensor: the names in ``_Description``. Both formats are read: the zip
archive of PyTorch 1.6 and newer (2020), and the chain of pickles before it.
"""

from __future__ import annotations

import collections
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
}  # fmt: skip
_MOST_PICKLE = 2**24  # bytes; names and shapes of some thousand tensors take one


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that holds one dictionary of them, such as a ``state_dict``, by name.

    Raises:
        ValueError: the file is none of the kind, is damaged, or would call something that weights do not need.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            return (_of_zip if zipfile.is_zipfile(file) else _of_pickles)(file)
        except OSError:
            raise
        except Exception as error:  # whatever a damaged pickle or archive raises
            raise ValueError(str(error) or type(error).__name__) from error


def _of_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        [found] = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [""]
        if not found:
            raise ValueError("an archive without data.pkl")
        folder = found.removesuffix("data.pkl")
        if folder + "byteorder" in archive.namelist() and _entry(archive, folder + "byteorder", 6) != b"little":
            raise ValueError("its numbers are not little-endian")
        with archive.open(found) as pickled:
            described = _described(_Description(pickled).load())

        def numbers(storage: _Storage) -> np.ndarray:
            size = storage.size * np.dtype(storage.dtype).itemsize
            return np.frombuffer(_entry(archive, f"{folder}data/{storage.key}", size, exactly=True), storage.dtype)

        return _tensors(described, numbers)


def _entry(archive: zipfile.ZipFile, name: str, most: int, exactly: bool = False) -> bytes:
    size = archive.getinfo(name).file_size
    if size > most or (exactly and size != most):
        raise ValueError(f"{name} has {size} bytes instead of {most}")
    return archive.read(name)


def _of_pickles(file: IO[bytes]) -> dict[str, np.ndarray]:
    file.seek(0)
    magic, protocol, system = (_Description(file).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not system["little_endian"]:
        raise ValueError("it was not written by torch.save, or its numbers are not little-endian")
    described = _described(_Description(file).load())
    declared = {tensor.storage.key: tensor.storage for tensor in described.values()}
    left = Path(file.name).stat().st_size - file.tell()
    found = {}
    for key in _Description(file).load():
        [size] = struct.unpack("<q", file.read(8))
        if key not in declared or size != declared[key].size:
            raise ValueError(f"storage {key} has {size} numbers, which no tensor tells of")
        bytes_ = size * np.dtype(declared[key].dtype).itemsize
        content = file.read(min(bytes_, left))
        if len(content) != bytes_:
            raise ValueError("it ends too early")
        found[key] = np.frombuffer(content, declared[key].dtype)
    return _tensors(described, lambda storage: found[storage.key])


class _Description(pickle.Unpickler):
    """Unpickles descriptions of tensors; their numbers are read when all that they ask for has been checked."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        # Functions of this call's own: a pickle can set attributes of what it is given.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise ValueError(f"it would call {module}.{name}, which weights have no need of: refused")

    def persistent_load(self, saved: Any) -> _Storage:
        kind, dtype, key, _, size, *view = saved
        if kind != "storage" or dtype not in _DTYPES.values() or type(size) is not int or size < 0 or any(view):
            raise ValueError(f"it refers to {saved!r:.100}, which is no storage of numbers")
        return _Storage(dtype, str(key), size)


def _described(found: Any) -> dict[str, _Tensor]:
    """What was unpickled, each tensor within its storage.

    Raises:
        ValueError: it is not that.
    """
    if not isinstance(found, dict) or not all(isinstance(tensor, _Tensor) for tensor in found.values()):
        raise ValueError("it holds something else than a dictionary of tensors")
    for name, (storage, offset, shape, strides) in found.items():
        numbers = [offset, *shape, *strides]
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{name} is no tensor")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        # As many numbers as the storage at most, or a stride of zero could ask for any amount of memory.
        if math.prod(shape) and (last >= storage.size or math.prod(shape) > storage.size):
            raise ValueError(f"{name} reaches beyond its storage")
    return found


def _tensors(described: dict[str, _Tensor], numbers: Callable[[_Storage], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _strided(tensor, numbers(tensor.storage)) for name, tensor in described.items()}


def _strided(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides).copy()
