"""The options of the compiler of a run: chosen at its start (``train.tune``), and kept when it is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gan_cli.config.schema import Train
from gan_cli.engine import processes, tuning
from gan_cli.engine.compiled_steps import CompiledSteps, State
from gan_cli.storage.run_record import RunRecord
from gan_cli.training.progress import Reporter


def keep(steps: CompiledSteps, records: Sequence[RunRecord], before: Mapping[str, Any], reporter: Reporter) -> None:
    """Use the options with which a run began, so that it continues bit for bit, and note them in its records.

    Args:
        steps: the compiled steps.
        records: the writers of ``run.json`` of the run, or of the ensemble and its members.
        before: the contents of ``run.json``, empty for a new run.
        reporter: prints what another machine or another version of JAX changes.
    """
    choice, unusable = tuning.kept(before)
    steps.use(processes.broadcast_from_primary(lambda: choice.options))
    _note(choice, records)
    here = tuning.machine()
    if unusable:
        reporter.say(
            f"tuning    leaves out {', '.join(unusable)}, unknown to this version of JAX, so that rounding changes"
        )
    if choice.options and choice.machine != here:
        reporter.say(f"tuning    keeps {choice.variant}, measured on {choice.machine}; this machine is {here}")


def tune(
    steps: CompiledSteps, state: State, options: Train, records: Sequence[RunRecord], reporter: Reporter
) -> None:
    """Choose the options for a new run, use them, and note them in its records.

    The processes of a run would have to agree on each measurement, so a run of several processes has the default
    options.
    """
    calls = math.ceil(options.steps / steps.steps_per_call)
    choice = tuning.choose(steps, state, calls, options.tune) if jax.process_count() == 1 else None
    if choice is None:
        return
    steps.use(choice.options)
    _note(choice, records)
    reporter.say(f"tuning    {choice.variant}, {choice.speed:.2f} times the speed of the default options")


def _note(choice: tuning.Choice, records: Sequence[RunRecord]) -> None:
    facts = choice._asdict()
    options = facts.pop("options")
    for record in records:
        record.note(compiler_options=options, tuning=facts)
