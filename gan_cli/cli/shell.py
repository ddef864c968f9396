"""What the console scripts share: how they end, what they warn of, and how they prepare JAX."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gan_cli.errors import RunFailed, UserError


def exit_code(program: str, act: Callable[[], int]) -> int:
    """The exit status of ``act``; what the user should know of its failure goes to stderr, without a traceback."""
    try:
        return act()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{program}: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


def show_warnings(program: str) -> None:
    """Warnings of this package, a line each, to stderr."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    logger = logging.getLogger("gan_cli")
    logger.addHandler(handler)
    logger.propagate = False  # libraries give the root logger handlers of their own


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed for it; makes nothing."""
    there = next(parent for parent in path.resolve().parents if parent.exists())
    if not there.is_dir() or path.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written.")


def one_of_several() -> bool:
    """Whether this process was started together with others: by ``srun``, or by hand as the README says."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 or "JAX_COORDINATOR_ADDRESS" in os.environ


def prepare_jax() -> None:
    """The persistent compilation cache, on unless the user has set one: a second start compiles nothing."""
    import jax

    from gan_cli.storage import cache

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
