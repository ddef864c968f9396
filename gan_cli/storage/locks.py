"""Locks on directories, so that two processes do not train in one directory at the same time."""

from __future__ import annotations

import errno
import fcntl
import time
from pathlib import Path
from typing import TextIO

_NAME = ".lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)  # every other error of flock means that the file system has no locks
_WAIT = 1.0  # seconds for which ``acquire`` tries, because ``is_held`` holds a lock for a moment


class Held(Exception):
    """Raised if another process holds the lock of a directory."""


class NoLocks(OSError):
    """Raised if the file system has no locks, as is usual for Lustre and for NFS without a lock service."""


def acquire(directory: Path) -> TextIO:
    """Lock a directory, and return the file whose closing releases the lock.

    The operating system also releases the lock when the process ends, even if the process is killed.

    Raises:
        Held: another process holds the lock.
        NoLocks: the file system has no locks.
        OSError: the lock file cannot be written.
    """
    file = (directory / _NAME).open("w")
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            _flock(file, fcntl.LOCK_EX)
        except Held:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            file.close()
            raise
        except NoLocks:
            file.close()
            raise
        return file


def is_held(directory: Path) -> bool:
    """Whether a process on this machine holds the lock of a directory.

    Raises:
        NoLocks: the file system has no locks.
        OSError: the lock file cannot be read.
    """
    try:
        with (directory / _NAME).open() as file:
            _flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except Held:
        return True
    return False


def _flock(file: TextIO, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise Held from None
        raise NoLocks(error.errno, error.strerror) from error
