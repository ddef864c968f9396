"""Functions that all commands of the package use: exit statuses, warnings, the version and settings of JAX."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gan_cli import __version__
from gan_cli.errors import RunFailed, UserError

log = logging.getLogger(__name__)


def exit_code(program: str, act: Callable[[], int]) -> int:
    """Call ``act``, which runs a command, and return the exit status of the command.

    Errors that the package expects are printed to stderr without a traceback, and have their own exit statuses.

    Args:
        program: the name of the command, with which each error message starts.
        act: a function that returns the exit status.
    """
    _open_standard_streams()
    try:
        return act()
    except UserError as error:
        _complain(f"{program}: {error}")
        return 2
    except RunFailed as error:
        _complain(f"{program}: {error}")
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(f"{program}: {error.strerror or error}: {error.filename or ''}")
        return 1
    except KeyboardInterrupt:
        _complain(f"{program}: interrupted")
        return 130


def _open_standard_streams() -> None:
    """Open each closed standard stream as /dev/null.

    The operating system would otherwise give the number of the stream to a file of the run, into which libraries
    would then print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the new descriptor has the lowest free number


def _complain(message: str) -> None:
    """Print a message to stderr, if stderr can be written."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Python would write the pending text again at its end


def version_text(program: str) -> str:
    """The line that ``program --version`` prints."""
    return f"{program} (gan_cli) {__version__}"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--version`` to a parser."""
    parser.add_argument("--version", action="version", version=version_text(parser.prog), help="print the version")


def add_modules(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--modules``."""
    parser.add_argument(
        "--modules",
        default="",
        metavar="A,B,...",
        help="your own Python modules that the configuration of a run names, separated by commas (default: none)",
    )


def show_warnings(program: str) -> None:
    """From now on, print each logged warning of this package to stderr, on a line that starts with ``program``."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    logger = logging.getLogger("gan_cli")
    logger.addHandler(handler)
    logger.propagate = False  # libraries add handlers to the root logger, which would print a warning twice


def check_target(path: Path) -> None:
    """Raise a UserError if no file can be written at ``path``. Commands call this before long computations."""
    there = next(parent for parent in path.resolve().parents if parent.exists())
    if not there.is_dir() or path.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        if path.is_dir():
            raise UserError(f"{path}: cannot be written, because the path is a directory. Name a file.")
        if not there.is_dir():
            raise UserError(f"{path}: cannot be written, because {there} is a file. Name a path in a directory.")
        raise UserError(f"{path}: cannot be written, because {there} is not writable. Name another path.")


def one_of_several() -> bool:
    """Whether this process is one of several processes that train the same run.

    This is the case if ``srun`` has started several processes, or if JAX_COORDINATOR_ADDRESS is set.
    """
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 or "JAX_COORDINATOR_ADDRESS" in os.environ


def prepare_jax() -> None:
    """Enable JAX's persistent compilation cache, so that a second start of the same run need not compile its steps.

    If the environment variable JAX_COMPILATION_CACHE_DIR is set, its value is the directory of the cache. Without a
    cache folder that can be written, there is no compilation cache.
    """
    import jax

    from gan_cli.storage import cache

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = cache.root()
        if folder is not None and os.access(folder, os.W_OK | os.X_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
        elif folder is not None:
            log.warning("%s: cannot be written, so each run compiles its steps again.", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
