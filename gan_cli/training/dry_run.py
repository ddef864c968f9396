"""A dry run: what a run would be, said and drawn, without training."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.engine import randomness
from gan_cli.engine.state import init_state
from gan_cli.storage import provenance
from gan_cli.views import pictures, sample_writer


def describe(experiment: Experiment) -> list[str]:
    """One line each for the device, the data, the players and the steps."""
    state = jax.eval_shape(functools.partial(init_state, experiment.setup))
    bytes_ = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    data, options = experiment.dataset, experiment.train
    lines = [f"device    {provenance.summary(experiment.devices.used)}"]
    if data is not None:
        epochs = options.steps * experiment.strategy.batches / max(data.size // options.batch_size, 1)
        lines.append(f"data      {data.name}: {data.size:,} examples of {data.spec.shape}, {epochs:,.1f} epochs")
    for player, params in state.params.items():
        lines.append(f"player    {player}: {sum(x.size for x in jax.tree.leaves(params)):,} parameters")
    lines.append(f"state     {bytes_ / 2**20:.1f} MiB, of which {options.keep} checkpoints are kept")
    if experiment.ensemble is not None:
        varied = ", ".join(experiment.ensemble.varied)
        lines.append(f"ensemble  {len(experiment.ensemble.members)} members that differ in {varied}")
    lines.append(
        f"steps     {options.steps:,} of {experiment.strategy.batches} x {options.batch_size} examples, "
        f"{options.steps_per_call} in one call"
    )
    return lines


def draw(experiment: Experiment, path: Path) -> Path:
    """The examples of the first batches, as the discriminator sees them, as one picture."""
    data = experiment.dataset
    assert data is not None
    wanted = pictures.SIDE**2 if data.spec.is_image else pictures.POINTS
    seen = randomness.first_examples(data, experiment.seed, experiment.train.batch_size, wanted)
    sample_writer.draw_samples(data, np.asarray(jnp.asarray(seen)), path)
    return path
