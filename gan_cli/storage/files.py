"""Atomic writing of files, and reading of JSON and NumPy files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write(path: Path, fill: Callable[[BinaryIO], object], mode: int = 0o644) -> None:
    """Write a file atomically: ``path`` is never an incomplete file, even if the process is killed.

    Args:
        path: path of the file. Missing parent folders are created.
        fill: function that receives an open binary file and writes the content to this file.
        mode: permissions of the file. Until it is complete, only its owner can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        with contextlib.suppress(OSError):  # some file systems, such as mounted buckets, have no permissions
            Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` to a file atomically, with the permissions ``mode``."""
    write(path, lambda file: file.write(content), mode)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to a JSON file atomically. Infinite numbers and NaN are written as null."""
    write_bytes(path, (json.dumps(jsonable(value), indent=2) + "\n").encode())


def expanded(path: str) -> Path:
    """``path`` with the user's home folder in place of a leading ``~``, or unchanged if there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """A dictionary from names to the arrays in an ``.npz`` or ``.npy`` file.

    The array in an ``.npy`` file has the name ``""``.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is damaged, or is neither an ``.npz`` nor an ``.npy`` file.
    """
    with path.open("rb") as file:  # np.load(path) would not close a file that is not an archive
        try:
            found = np.load(file, allow_pickle=False)
            return {"": found} if isinstance(found, np.ndarray) else dict(found)
        except OSError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise many types of exceptions on damaged files
            raise ValueError(str(error) or type(error).__name__) from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the content is not valid JSON, or its nesting is too deep for the parser.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def number(name: str) -> int | None:
    """The number that a file name without suffix consists of, for example a step; None for any other name.

    The program writes numbers in ASCII digits without leading zeros. Other names, such as ``10 (1)`` or ``007``,
    belong to files that the program has not written.
    """
    return int(name) if re.fullmatch("0|[1-9][0-9]*", name, re.ASCII) else None


def jsonable(value: Any) -> Any:
    """A copy of ``value`` in which None replaces infinite numbers and NaN.

    Numbers in nested dictionaries, lists and tuples are replaced too. Tuples become lists.
    """
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
