"""Reads weights that ``torch.save`` wrote, without PyTorch and without executing code from the file.

A file of ``torch.save`` contains pickles and raw numbers. A pickle is a program that can call any function. The
unpickler of this module, ``_Description``, permits only the functions that create ordered dictionaries and describe
tensors. The module reads both formats of PyTorch: the zip archive (since version 1.6, 2020) and the older sequence
of pickles.
"""

from __future__ import annotations

import collections
import io
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
_MOST_PICKLE = 2**24  # bytes; the names and shapes of several thousand tensors fit


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
    """A dictionary from names to the tensors of a file, which must contain such a dictionary (a ``state_dict``).

    Raises:
        ValueError: ``torch.save`` did not write the file, the file is damaged, or the file calls a function that
            weights do not need.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            return (_of_zip if zipfile.is_zipfile(file) else _of_pickles)(file)
        except OSError:
            raise
        except Exception as error:  # a damaged pickle or archive can raise any exception
            raise ValueError(str(error) or type(error).__name__) from error


def _of_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        [found] = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [""]
        if not found:
            raise ValueError("the archive does not contain data.pkl")
        folder = found.removesuffix("data.pkl")
        if folder + "byteorder" in archive.namelist() and _entry(archive, folder + "byteorder", 6) != b"little":
            raise ValueError("the numbers in the file are not little-endian")
        described = _described(_Description(io.BytesIO(_entry(archive, found, _MOST_PICKLE))).load())

        def numbers(storage: _Storage) -> np.ndarray:
            size = storage.size * np.dtype(storage.dtype).itemsize
            return np.frombuffer(_entry(archive, f"{folder}data/{storage.key}", size, exactly=True), storage.dtype)

        return _tensors(described, numbers)


def _entry(archive: zipfile.ZipFile, name: str, most: int, exactly: bool = False) -> bytes:
    size = archive.getinfo(name).file_size
    if size > most or (exactly and size != most):
        raise ValueError(
            f"the archive entry {name} has {size} bytes instead of {'' if exactly else 'at most '}{most}"
        )
    return archive.read(name)


def _of_pickles(file: IO[bytes]) -> dict[str, np.ndarray]:
    file.seek(0)
    magic, protocol, system = (_Description(file).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not system["little_endian"]:
        raise ValueError("the file was not written by torch.save, or its numbers are not little-endian")
    described = _described(_Description(file).load())
    declared = {tensor.storage.key: tensor.storage for tensor in described.values()}
    left = Path(file.name).stat().st_size - file.tell()
    found = {}
    for key in _Description(file).load():
        [size] = struct.unpack("<q", file.read(8))
        if key not in declared or size != declared[key].size:
            raise ValueError(f"storage {key} has {size} numbers, which does not match any tensor")
        bytes_ = size * np.dtype(declared[key].dtype).itemsize
        content = file.read(min(bytes_, left))
        if len(content) != bytes_:
            raise ValueError("the file is truncated")
        found[key] = np.frombuffer(content, declared[key].dtype)
    return _tensors(described, lambda storage: found[storage.key])


class _Description(pickle.Unpickler):
    """An unpickler that permits ordered dictionaries and descriptions of tensors, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        # Each lookup returns a new function, because a pickle can set attributes of the objects that it receives.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise ValueError(f"the file calls {module}.{name}, which weights do not need, so the file is refused")

    def persistent_load(self, saved: Any) -> _Storage:
        kind, dtype, key, _, size, *view = saved
        if kind != "storage" or dtype not in _DTYPES.values() or type(size) is not int or size < 0 or any(view):
            raise ValueError(f"the file refers to {saved!r:.100}, which is not a storage of numbers")
        return _Storage(dtype, str(key), size)


def _described(found: Any) -> dict[str, _Tensor]:
    """The unpickled dictionary of tensors, after a check that each tensor fits into its storage.

    Raises:
        ValueError: the object is not a dictionary of tensors, or a tensor exceeds its storage.
    """
    if not isinstance(found, dict) or not all(isinstance(tensor, _Tensor) for tensor in found.values()):
        raise ValueError("the file does not contain a dictionary of tensors")
    for name, (storage, offset, shape, strides) in found.items():
        numbers = [offset, *shape, *strides]
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{name} is not a valid tensor")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        # A tensor has at most as many numbers as its storage. Otherwise, a stride of zero could allocate any amount
        # of memory.
        if math.prod(shape) and (last >= storage.size or math.prod(shape) > storage.size):
            raise ValueError(f"tensor {name} exceeds its storage")
    return found


def _tensors(described: dict[str, _Tensor], numbers: Callable[[_Storage], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _strided(tensor, numbers(tensor.storage)) for name, tensor in described.items()}


def _strided(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides).copy()
