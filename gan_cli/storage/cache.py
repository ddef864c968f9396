"""What may be computed once and kept: under the user's cache folder, found by what it depends on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gan_cli.storage import files

log = logging.getLogger(__name__)


def root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan_cli"


def digest(*parts: object) -> str:
    """A SHA-256 of everything that a cached value depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def arrays(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What ``make`` gives, from the cache where it has been made before.

    A file that cannot be read is made anew; one that cannot be written costs the next process the same work.
    """
    path = root() / kind / f"{key}.npz"
    try:
        return files.read_arrays(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a damaged archive raises
        log.warning("%s cannot be read (%s): it is made anew", path, error)
    made = make()
    try:
        files.write(path, lambda file: np.savez(file, allow_pickle=False, **made))
    except OSError as error:
        log.warning("%s cannot be written (%s): it will be made again next time", path, error.strerror or error)
    return made
