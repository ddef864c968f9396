"""Chooses the options with which XLA compiles the program of a run, by measuring them on a CPU.

XLA has several libraries for matrix products, and two widths of vectors. Which are fastest depends on the shapes of
a program and on the machine. The results differ by rounding, so a resumed run keeps its options.
"""

from __future__ import annotations

import logging
import platform
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.engine.compiled_steps import CompiledSteps, State
from gan_cli.engine.steps import Options
from gan_cli.storage import cache, provenance

log = logging.getLogger(__name__)

VARIANTS: dict[str, Options] = {
    "wide": {"xla_cpu_prefer_vector_width": 512},
    "onednn": {
        "xla_cpu_prefer_vector_width": 512,
        "xla_cpu_experimental_onednn_custom_call": True,
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    },
}
# The newest version of JAX that the tests have run with experimental options. Some of these options end the process
# on some versions: oneDNN's fusions do so on JAX 0.10.
_NEWEST_JAX = (0, 12)
# The options that run.json may name. Others could write files, and a run's directory may come from anyone.
_NAMES = frozenset(name for options in VARIANTS.values() for name in options)

_CALLS = 500  # with fewer calls, a run is not measured, because even two additional calls would be noticeable
_SHORT = 60.0  # seconds that a run has to take, so that its options are looked up or measured
_SHARE = 0.02  # largest share of the expected duration of a run that its measurement may take
_COMPILATION = 5.0  # seconds that the compilation of a variant takes at least, as far as the estimate is concerned
_ROUNDS = (5, 15)  # smallest and largest number of measurements of each variant
_SECONDS = 10.0  # duration of all measurements after which no further round begins, except for the smallest number
_GAIN = 1.02  # smallest speed, relative to the default options, for which a variant is chosen


class Choice(NamedTuple):
    """Options of the compiler.

    Attributes:
        variant: name of the options: ``default``, or a key of ``VARIANTS``.
        options: options of XLA by name.
        speed: speed relative to the default options, or None if it was not measured.
        machine: the processor for which the options were chosen.
    """

    variant: str
    options: Options
    speed: float | None
    machine: str


def default(speed: float | None = None) -> Choice:
    """The default options of XLA."""
    return Choice("default", {}, speed, machine())


def kept(record: Mapping[str, Any]) -> tuple[Choice, list[str]]:
    """A pair: the choice of a run that is resumed, and the names of its options that cannot be used.

    Args:
        record: the contents of ``run.json``. A run of an earlier version has the default options.
    """
    noted, options = record.get("tuning") or {}, record.get("compiler_options") or {}
    unknown = [name for name, value in options.items() if name not in _NAMES or not _accepted({name: value})]
    known = {name: value for name, value in options.items() if name not in unknown}
    if known:
        _quiet()
    before = default()._replace(**{name: noted[name] for name in ("variant", "speed", "machine") if name in noted})
    return before._replace(options=known), unknown


def choose(steps: CompiledSteps, state: State, calls: int, mode: str) -> Choice | None:
    """The fastest options for a new run: from the cache, or measured on a copy of its state.

    Args:
        steps: the compiled steps, with the default options.
        state: the state before the first step.
        calls: number of calls of the program in the whole run.
        mode: ``auto``, or ``retune`` for a measurement in any case.

    Returns:
        The options. None if the run is short, if the measurement would take too much of it, or if the run is not on
        a CPU.
    """
    if jax.default_backend() != "cpu" or (mode == "auto" and calls < _CALLS):
        return None
    compilation, call = _first_calls(steps, state) if mode == "auto" else (0.0, 0.0)
    if mode == "auto" and calls * call < _SHORT:
        return None
    variants = available()
    if not variants:
        return None
    _quiet()
    key = cache.digest(_operations(steps, state), variants, _processor(), jax.__version__, len(jax.devices()))
    if mode == "retune":
        cache.forget("tuning", key)

    def measure() -> dict[str, np.ndarray]:
        rounds = max(_ROUNDS[0] * (len(variants) + 1) * call, _SECONDS)
        expected = len(variants) * max(compilation, _COMPILATION) + rounds
        if mode == "auto" and expected > _SHARE * calls * call:
            raise _TooLong
        return speeds(steps, state, variants)

    try:
        found = cache.arrays("tuning", key, measure)
    except _TooLong:
        return None
    # The lower quartile, so that disturbed calls make no winner.
    low = {name: float(np.quantile(ratios, 0.25)) for name, ratios in found.items()}
    best = max(low, key=low.__getitem__, default="")
    if not best or low[best] < _GAIN:
        return default(1.0)
    return Choice(best, variants[best], round(float(np.median(found[best])), 3), machine())


class _TooLong(Exception):
    """The measurement would take too much of a run."""


def _first_calls(steps: CompiledSteps, state: State) -> tuple[float, float]:
    """The seconds of the first call of the default program, which compiles, and of the second."""
    trial = steps.trial(0, {})
    copy, first = trial(jax.tree.map(jnp.copy, state))
    return first, trial(copy)[1]


def speeds(steps: CompiledSteps, state: State, variants: Mapping[str, Options]) -> dict[str, np.ndarray]:
    """The speed of each variant in each round, relative to the default options in the same round."""
    trials = {name: steps.trial(0, options) for name, options in {"default": {}, **variants}.items()}
    copy = jax.tree.map(jnp.copy, state)  # its buffers are donated from call to call
    for trial in trials.values():
        copy, _ = trial(copy)  # compiles
    rounds: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(rounds) < _ROUNDS[0] or (len(rounds) < _ROUNDS[1] and time.perf_counter() - began < _SECONDS):
        rounds.append({})
        for name, trial in trials.items():
            copy, rounds[-1][name] = trial(copy)
    return {name: np.array([seconds["default"] / seconds[name] for seconds in rounds]) for name in variants}


def available() -> dict[str, Options]:
    """The variants that this version of JAX accepts on this processor."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    tested = jax.__version_info__[:2] <= _NEWEST_JAX
    return {
        name: options
        for name, options in VARIANTS.items()
        if (tested or not any("experimental" in option for option in options)) and _accepted(options)
    }


def machine() -> str:
    """The processor of this machine, for example ``"AMD EPYC, 2 cores"``."""
    name, _, cores = _processor()
    return f"{name}, {cores} cores"


def _processor() -> tuple[str, str, int]:
    """Name, instruction sets and number of available cores of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    name, flags = (
        match.group(1) if (match := re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE)) else ""
        for key in ("model name", "flags")
    )
    return name or platform.processor() or platform.machine(), flags, provenance.cores()


def _operations(steps: CompiledSteps, state: State) -> str:
    """The program without the values of constants, e.g. learning rates, which do not affect its speed."""
    return re.sub(r"dense<[^>]*>", "", steps.lower(state, steps.next_length(0)).as_text())


def _accepted(options: Options) -> bool:
    """Whether this version of JAX knows the options."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        log.info("JAX %s does not accept %s: %s", jax.__version__, options, error)
        return False
    return True


def _quiet() -> None:
    """Ignore that JAX 0.12 cannot cache programs with calls of oneDNN, so that each start compiles them."""
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry for 'jit_chunk'")
