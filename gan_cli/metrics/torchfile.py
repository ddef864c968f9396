"""Reads weights that ``torch.save`` has written, without PyTorch, and without executing anything of the file.

Both of its formats are pickles that refer to raw arrays: beside them in a zip, or behind them in one stream.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # what the stream begins with
_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Storage(NamedTuple):
    dtype: Any
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Knows tensors, ordered dictionaries, and no other name: a pickle can call only what it can name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights have no use for")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return _Storage(np.dtype(dtype), str(key))


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary, by name.

    Raises:
        ValueError: the file is damaged, holds something else, or names what it should not.
    """
    try:
        named, storages = _zip(path) if zipfile.is_zipfile(path) else _stream(path)
        tensors = {name: tensor for name, tensor in named.items() if isinstance(tensor, _Tensor)}
        return {str(name): _array(tensor, storages) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"not the weights of a network ({error})") from error


def _zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed weights: torch.save stores them plainly")
        (record,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = record.removesuffix("data.pkl") + "data/"
        storages = {name.removeprefix(folder): archive.read(name) for name in archive.namelist() if folder in name}
        return _Unpickler(io.BytesIO(archive.read(record))).load(), storages


def _stream(path: Path) -> tuple[Any, dict[str, bytes]]:
    with path.open("rb") as file:
        if _Unpickler(file).load() != _MAGIC:
            raise ValueError("not written by torch.save")
        _Unpickler(file).load()  # the format's version
        _Unpickler(file).load()  # sizes and byte order of the machine
        unpickler = _Recording(file)
        named, keys = unpickler.load(), _Unpickler(file).load()
        storages = {}
        for key in keys:
            (count,) = np.frombuffer(file.read(8), "<i8")
            size = int(count) * unpickler.dtypes[str(key)].itemsize
            storages[str(key)] = file.read(size) if size >= 0 else b""
        return named, storages


class _Recording(_Unpickler):
    """Remembers the type of each storage: behind a stream's pickle stands only how many numbers it has."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.dtypes: dict[str, np.dtype] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        self.dtypes[storage.key] = storage.dtype
        return storage


def _array(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    storage = tensor.storage
    content = storages[storage.key]
    whole = len(content) // storage.dtype.itemsize
    numbers = np.frombuffer(content, storage.dtype, whole) if whole else np.empty(0, storage.dtype)
    spans = [(side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True)]
    empty = 0 in tensor.shape
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or (
        not empty and tensor.offset + sum(spans) >= len(numbers)
    ):
        raise ValueError("an array reaches beyond what the file holds of it")
    if empty:
        return np.empty(tensor.shape, storage.dtype)
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides).copy()
