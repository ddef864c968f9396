"""A cache of arrays in the user's cache folder.

The name of a cache file contains a hash of all inputs from which the arrays are computed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gan_cli.storage import files

log = logging.getLogger(__name__)


def root() -> Path | None:
    """The cache folder: ``$XDG_CACHE_HOME/gan_cli``, or ``~/.cache/gan_cli``. The folder is made if it is missing.

    The result is None if there can be no cache folder, for example because the user has no home folder. The first
    call then logs a warning. A relative ``XDG_CACHE_HOME`` is ignored, as the XDG specification demands.
    """
    return _root(os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME"))


@functools.cache
def _root(cache_home: str, home: str | None) -> Path | None:
    try:
        base = Path(cache_home) if Path(cache_home).is_absolute() else Path.home() / ".cache"
        (base / "gan_cli").mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError) as error:  # RuntimeError: neither HOME nor the password database names a folder
        log.warning(
            "There is no cache (%s), so each run compiles its steps and computes the features of its data again. "
            "To use a cache, set the environment variable XDG_CACHE_HOME to a writable folder.",
            str(error).rstrip("."),
        )
        return None
    return base / "gan_cli"


def digest(*parts: object) -> str:
    """The SHA-256 hash of the ``repr`` of ``parts``, which must include all inputs of the cached arrays."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def arrays(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A dictionary of arrays from the cache, or from ``make`` if the cache does not contain the arrays.

    If the cache file does not exist or cannot be read, the function calls ``make`` and writes the arrays to the
    cache file. Without a cache folder, it only calls ``make``. If an existing cache file cannot be read, or if
    writing fails, the function also logs a warning.

    Args:
        kind: sub-folder of the cache.
        key: digest of all inputs of the computation.
        make: function that computes the arrays and returns a dictionary from names to arrays.
    """
    folder = root()
    if folder is None:
        return make()
    path = folder / kind / f"{key}.npz"
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


def forget(kind: str, key: str) -> None:
    """Remove the arrays of a key from the cache, so that ``arrays`` makes them again."""
    folder = root()
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / kind / f"{key}.npz").unlink(missing_ok=True)
