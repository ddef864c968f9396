"""Writing files so that a reader, or a process killed half-way, never sees half a file."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


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


def jsonable(value: Any) -> Any:
    """``value`` with non-finite numbers replaced by None."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
