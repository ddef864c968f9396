"""A cache of computed arrays in the user's cache folder, keyed by a digest of all inputs."""

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
    """SHA-256 of the ``repr`` of ``parts``, which must include all inputs of a cached value."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def arrays(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that ``make`` computes, read from the cache if an earlier call has stored them.

    If the cache file cannot be read or written, the function logs a warning and returns the computed arrays.

    Args:
        kind: sub-folder of the cache.
        key: digest of all inputs of the arrays.
        make: function that computes the arrays and returns them by name.
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
