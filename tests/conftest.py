"""Shared helpers: they run gan-train in a subprocess, and build experiments in this process."""

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

# The tests compile dozens of programs and run each only briefly, so optimisation would take most of the time.
# Without optimisation, results differ only by rounding.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import pytest

from gan_cli.config.build import Experiment
from gan_cli.engine import steps
from gan_cli.engine.state import init_state
from gan_cli.estimators import total
from gan_cli.types import Game

HERE = Path(__file__).parent
# Options that select the game with two scalar parameters in toy.py and configs/.
TOY = ["--config-dir", str(HERE / "configs"), "modules=[toy]", "experiment=toy"]
# Options for networks so small that compilation takes most of a test's time.
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
    """Make all test processes share one compilation cache, separate from the user's."""
    root = Path(os.environ.get("GAN_CLI_TEST_CACHE") or tmp_path_factory.getbasetemp().parent / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root)
    jax.config.update("jax_compilation_cache_dir", str(root))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(autouse=True)
def _cache_everything() -> None:
    """Make JAX cache every program; by default it skips programs that compile within a second.

    This runs before each test because a test may have changed the limit.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def loss_value(
    game: Game, player: str, params: Any, net_state: Any, batch: Any, key: jax.Array, step: Any
) -> tuple[jax.Array, Any]:
    """A pair: a player's loss on a batch without noise, and the metrics of the loss."""
    found = game.loss(player, params, net_state, game.noise(batch, key), key, step)
    return total(found.terms), found.metrics


def free_programs() -> None:
    """Free this process's compiled programs; a later test reloads them from the shared cache.

    A deep network's compilation takes hundreds of megabytes. The C library keeps freed memory until ``malloc_trim``
    returns it to the system.
    """
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # exists in glibc only
    if trim is not None:
        trim(0)


@pytest.fixture(scope="module", autouse=True)
def _free_programs() -> Iterator[None]:
    """Keep the memory of a process bounded while it runs many test files."""
    yield
    free_programs()


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Remove the log handlers of each test, so that they do not affect the next test."""
    yield
    logger = logging.getLogger("gan_cli")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def import_reference(module: str) -> Any:
    """Import a module that needs PyTorch or torch-fidelity, for a test marked ``comparison``.

    These packages are not dependencies. If the import fails, the test is skipped; with
    ``GAN_CLI_REQUIRE_COMPARISONS`` set, as in CI, the test fails.
    """
    if os.environ.get("GAN_CLI_REQUIRE_COMPARISONS"):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason="make test-comparisons installs the reference packages")


_FIGURES: list[tuple[str, str]] = []


@pytest.fixture
def figure() -> Callable[[str, str], None]:
    """Record a figure, which is printed after all tests: ``figure(name, value)``."""
    return lambda name, value: _FIGURES.append((name, value))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _FIGURES:
        terminalreporter.section("figures")
        for name, value in _FIGURES:
            terminalreporter.write_line(f"| {name} | {value} |")


@pytest.fixture
def gan_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run gan-train in a subprocess, in an empty directory, and wait until it ends."""

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
    """The command that starts gan-train in a subprocess."""
    return [sys.executable, "-m", "gan_cli.cli.train", *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with importable test modules and a wide terminal."""
    return os.environ | {"PYTHONPATH": str(HERE), "COLUMNS": "200"} | more


class Program:
    """The compiled steps of an experiment, and its training state."""

    def __init__(self, experiment: Experiment):
        e = self.experiment = experiment
        data = e.dataset
        self.chunk = steps.compile_chunk(e.setup, data.feed if data else None, e.train.batch_size, e.train.ema)
        self.arrays = jax.device_put(data.examples) if data else None
        self.state = jax.jit(lambda: init_state(e.setup))()

    def run(self, length: int) -> dict[str, Any]:
        """Run ``length`` steps and return the metrics of each step."""
        self.state, metrics, self.finite = self.chunk(self.state, self.arrays, length)
        return jax.device_get(metrics)
