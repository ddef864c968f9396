"""Writing files so that a reader, or a process killed half-way, never sees half a file; reading arrays."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """Let ``fill`` write a file that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    write(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; a number that JSON cannot hold (infinite, not a number) becomes null."""
    write_bytes(path, (json.dumps(jsonable(value), indent=2) + "\n").encode())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` by name; that of an ``.npy`` under the name "".

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is neither.
    """
    with path.open("rb") as file:  # NumPy leaves a file open that proves to be no archive
        try:
            found = np.load(file, allow_pickle=False)
            return {"": found} if isinstance(found, np.ndarray) else dict(found)
        except OSError:
            raise
        except Exception as error:  # whatever zipfile, zlib and NumPy make of a damaged one
            raise ValueError(str(error) or type(error).__name__) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no JSON, or nested beyond reason.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def jsonable(value: Any) -> Any:
    """``value`` with non-finite numbers replaced by None."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
