"""Functions that all commands of the package use: exit statuses, warnings, the version and settings of JAX."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gan_cli import __version__
from gan_cli.errors import RunFailed, UserError

log = logging.getLogger(__name__)
# Number of new objects before Python looks for unreachable cycles. Imports and tracing make many objects that live
# to the end, and Python's default would search them about 200 times, which takes a tenth of the start of a run.
_OBJECTS_BEFORE_COLLECTION = 100_000
# Settings of JAX whose default the program needs, because another value stops the steps from compiling, or changes
# the random numbers of a run, which must depend on its seed and its step only.
_JAX_DEFAULTS = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_transfer_guard": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
_CPU_DEVICES = "jax_num_cpu_devices"  # the setting for the number of devices of the CPU


def exit_code(program: str, act: Callable[[], int]) -> int:
    """Call ``act``, which runs a command, and return the exit status of the command.

    Errors that the package expects are printed to stderr without a traceback, and have their own exit statuses.

    Args:
        program: the name of the command, with which each error message starts.
        act: a function that returns the exit status.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    atexit.register(gc.freeze)  # Python would search all objects again as it ends, which takes half a second
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its number instead
            stream.reconfigure(errors="backslashreplace")
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
    finally:
        gc.set_threshold(*before)


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
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return (tasks.isdecimal() and int(tasks) > 1) or bool(os.environ.get("JAX_COORDINATOR_ADDRESS"))


def prepare_jax(join: bool = False, cores: bool = False) -> None:
    """Import JAX, find its devices, and enable its persistent compilation cache.

    With the cache, a second start of the same run need not compile its steps. If the environment variable
    JAX_COMPILATION_CACHE_DIR is set, its value is the directory of the cache. Without a folder that can be written,
    there is no cache.

    Args:
        join: whether to connect to the other processes of the run, which must happen before JAX finds its devices.
        cores: whether each core of the CPU becomes a device, unless JAX_NUM_CPU_DEVICES is set or JAX has found its
            devices before.

    Raises:
        UserError: an environment variable has a value that JAX does not accept or that this program cannot use, or
            JAX finds no device.
    """
    try:
        import jax
    except ValueError as error:  # JAX reads its environment variables during the import
        name = next(
            (name for name in os.environ if name.startswith("JAX_") and name.lower() in str(error).lower()), "JAX_*"
        )
        raise UserError(
            f"{name}={os.environ.get(name, '')}: JAX does not accept this value ({error}). Correct or unset the "
            "environment variable."
        ) from error
    from gan_cli.storage import cache, provenance

    for setting, default in _JAX_DEFAULTS.items():
        value = getattr(jax.config, setting)
        if value != default and value is not None:
            raise UserError(
                f"{setting.upper()}={value}: gan_cli needs JAX's default, {default}. Unset the environment "
                "variable or the setting of JAX."
            )
    jax.config.update("jax_compilation_cache_dir", _compilation_cache(cache.root()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if cores and getattr(jax.config, _CPU_DEVICES) < 0:
        with contextlib.suppress(RuntimeError):  # JAX has found its devices before
            jax.config.update(_CPU_DEVICES, provenance.cores())
    if join:
        from gan_cli.engine import processes

        processes.join()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")
        chosen = " ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ) or "JAX"
        reason = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
        raise UserError(
            f"{chosen}: JAX finds no such device{reason}. Unset JAX_PLATFORMS and JAX_PLATFORM_NAME to use the "
            "devices of this machine, or install JAX for the device, e.g. pip install 'gan_cli[cuda]'."
        ) from error


def _compilation_cache(root: Path | None) -> str | None:
    """The directory of JAX's compilation cache, which this function creates. None if it cannot be written.

    Args:
        root: the cache folder of the program. None if it cannot be written; a warning has then been logged.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR") or (root and str(root / "xla"))
    if not chosen:
        return None
    try:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        if os.access(chosen, os.W_OK | os.X_OK):
            return chosen
        reason = "no permission to write"
    except OSError as error:
        reason = error.strerror or str(error)
    log.warning(
        "%s: cannot hold compiled programs (%s), so every start compiles them again. Set the environment variable "
        "JAX_COMPILATION_CACHE_DIR to a writable folder.",
        chosen,
        reason,
    )
    return None
