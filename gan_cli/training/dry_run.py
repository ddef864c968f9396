"""A dry run: describes a run, and writes a picture of the first examples, without training."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image
from gan_cli.engine import randomness
from gan_cli.engine.state import init_state
from gan_cli.privacy import leaks
from gan_cli.storage import files, provenance
from gan_cli.training import init_from


def describe(experiment: Experiment) -> list[str]:
    """A list of lines that describe the device, the data, the players, the training state and the steps."""
    state = jax.eval_shape(functools.partial(init_state, experiment.setup))
    bytes_ = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    data, options = experiment.dataset, experiment.train
    lines = [f"device    {provenance.summary(experiment.devices.used)}"]
    if data is not None:
        epochs = options.steps * experiment.strategy.batches / max(data.size // options.batch_size, 1)
        lines.append(f"data      {data.summary}, {epochs:,.1f} epochs")
        lines += data.lines()
    for player, params in state.params.items():
        lines.append(f"player    {player}: {sum(x.size for x in jax.tree.leaves(params)):,} parameters")
    lines.append(f"state     {bytes_ / 2**20:.1f} MiB; the newest {options.keep} checkpoints are kept")
    if (transferred := init_from.transfer(experiment)) is not None:
        lines += transferred.lines()
    if experiment.ensemble is not None:
        varied = ", ".join(experiment.ensemble.varied)
        lines.append(f"ensemble  {len(experiment.ensemble.members)} members that differ in {varied}")
    lines.append(
        f"steps     {options.steps:,} of {experiment.strategy.batches} x {options.batch_size} examples, "
        f"{options.steps_per_call} per call of the compiled program"
    )
    if experiment.ledger is not None:
        lines.append(f"privacy   {experiment.ledger.line(options.steps)}")
        lines += leaks.lines(list(experiment.leaks))
    return lines


def write_documents(data: Dataset, directory: Path) -> list[Path]:
    """Write the text files that describe the data into a directory, and return their paths."""
    for name, text in data.documents.items():
        directory.mkdir(parents=True, exist_ok=True)
        files.write_bytes(directory / name, text.encode())
    return [directory / name for name in data.documents]


def draw(experiment: Experiment, path: Path) -> Path:
    """Write a picture of the first training examples as the networks receive them, and return its path.

    If the examples contain several images, e.g. ``a`` and ``b``, each has a row of its own. The picture of a table
    shows the distributions of its columns.
    """
    # Not above, because training imports this module, and the modules that draw would delay the first call.
    from gan_cli.views import pictures, sample_writer
    from gan_cli.views.kinds import view

    data = experiment.dataset
    assert data is not None
    if view(data.feature).real is not None:
        sample_writer.draw_real(data, path)
        return path
    chosen, size = view(data.feature), data.feature.shape[:2]
    images = [name for name, one in data.spec.items() if isinstance(one, Image) and one.shape[:2] == size]
    count = chosen.in_rows(len(images)) if len(images) > 1 else chosen.count
    examples = randomness.first_examples(data, experiment.seed, experiment.train.batch_size, count)
    if len(images) > 1:
        picture, labels = chosen.rows([np.asarray(examples[name]) for name in images], images)
        pictures.write(path, picture, None, labels)
    else:
        sample_writer.draw_samples(data, np.asarray(examples[data.main]), path, None)
    return path
