"""What the tests share: how to call the program from a shell, and how to build experiments in this process."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Programs run for a moment here and are compiled by the dozen: optimising them would take most of the time.
# Results differ from an optimised program's by rounding only.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import pytest

from gan_cli.config.build import Experiment
from gan_cli.engine import steps
from gan_cli.engine.state import init_state

HERE = Path(__file__).parent
# A game of two numbers that lies beside the tests (toy.py, configs/).
TOY = ["--config-dir", str(HERE / "configs"), "modules=[toy]", "experiment=toy"]
# Small enough that compiling takes most of the time.
TINY = [
    "train.batch_size=8",
    "train.steps=8",
    "train.steps_per_call=4",
    "train.log_every=4",
    "train.checkpoint_every=4",
    "train.sample_every=0",
    "model.latent_dim=4",
    "model.generator.width=8",
    "model.discriminator.width=8",
]


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests compile the same programs in many processes, so they share a cache, and leave the user's alone."""
    root = Path(os.environ.get("GAN_CLI_TEST_CACHE") or tmp_path_factory.getbasetemp().parent / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root)
    jax.config.update("jax_compilation_cache_dir", str(root))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(autouse=True)
def _cache_everything() -> None:
    """By default what compiles within a second is not cached, which here is most; a test may have set a limit."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def forget_programs() -> None:
    """Compiled programs leave this process; what is needed again comes from the shared cache.

    The compiler has hundreds of megabytes for a deep network, which the C library keeps unless it is told.
    """
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


@pytest.fixture(scope="module", autouse=True)
def _forgets_programs() -> Iterator[None]:
    """A process that runs many files does not grow with them."""
    yield
    forget_programs()


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """No handler of one test may be left to the next."""
    yield
    logger = logging.getLogger("gan_cli")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def compared(module: str) -> Any:
    """A module of PyTorch or torch-fidelity, for tests marked ``comparison``: these are no dependencies.

    Where it is missing the test is skipped; with ``GAN_CLI_REQUIRE_COMPARISONS`` set, as in CI, it fails.
    """
    if os.environ.get("GAN_CLI_REQUIRE_COMPARISONS"):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason="make test-comparisons installs what is compared with")


_FIGURES: list[tuple[str, str]] = []


@pytest.fixture
def figure() -> Callable[[str, str], None]:
    """Note a figure that is printed when all tests are through: ``figure(what, found)``."""
    return lambda what, found: _FIGURES.append((what, found))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _FIGURES:
        terminalreporter.section("figures")
        for what, found in _FIGURES:
            terminalreporter.write_line(f"| {what} | {found} |")


@pytest.fixture
def gan_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the program as a shell would, in an empty folder, and wait for it."""

    def call(*arguments: str, timeout: float = 300, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(),
            **more,
        )

    return call


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gan_cli.cli.train", *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the tests' own modules importable and the terminal wide."""
    return os.environ | {"PYTHONPATH": str(HERE), "COLUMNS": "200"} | more


class Program:
    """An experiment's compiled program and its state."""

    def __init__(self, experiment: Experiment):
        e = self.experiment = experiment
        data = e.dataset
        self.chunk = steps.compile_chunk(e.setup, data.feed if data else None, e.train.batch_size, e.train.ema)
        self.arrays = jax.device_put(data.arrays) if data else None
        self.state = jax.jit(lambda: init_state(e.setup))()

    def run(self, length: int) -> dict[str, Any]:
        """Make ``length`` steps; returns the metrics of each."""
        self.state, metrics, self.finite = self.chunk(self.state, self.arrays, length)
        return jax.device_get(metrics)
