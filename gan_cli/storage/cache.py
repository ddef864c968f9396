"""A cache of arrays in the user's cache folder.

The name of a cache file contains a hash of all inputs from which the arrays are computed.
"""

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
    """The cache folder: ``$XDG_CACHE_HOME/gan_cli``, or ``~/.cache/gan_cli``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan_cli"


def digest(*parts: object) -> str:
    """The SHA-256 hash of the ``repr`` of ``parts``, which must include all inputs of the cached arrays."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def arrays(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A dictionary of arrays from the cache, or from ``make`` if the cache does not contain the arrays.

    If the cache file does not exist or cannot be read, the function calls ``make`` and writes the arrays to the
    cache file. If an existing cache file cannot be read, or if writing fails, the function also logs a warning.

    Args:
        kind: sub-folder of the cache.
        key: digest of all inputs of the computation.
        make: function that computes the arrays and returns a dictionary from names to arrays.
    """
    path = root() / kind / f"{key}.npz"
    try:
        return files.read_arrays(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # reading a damaged archive may raise any exception
        log.warning("%s: the cache file cannot be read (%s). Its contents are recomputed.", path, error)
    made = make()
    try:
        files.write(path, lambda file: np.savez(file, allow_pickle=False, **made))
    except OSError as error:
        log.warning(
            "%s: the cache file cannot be written (%s). The next run recomputes its contents. To use the cache, "
            "free disk space, or set the environment variable XDG_CACHE_HOME to a writable folder.",
            path,
            error.strerror or error,
        )
    return made
