"""Writes run directories in the current format, as fixtures that later versions must be able to resume.

    python tests/earlier_runs/write.py FOLDER

Each fixture is trained for 20 steps. Its ``expected.json`` holds the values that a later version must reproduce: a
SHA-256 of every array, the random key and the batch indices of step 20, the losses at step 30, and every 25th value
of four samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gan_cli
from gan_cli.engine import randomness
from gan_cli.storage import checkpoints, provenance
from gan_cli.storage.run_directory import runs
from gan_cli.trained.restore import restore_run
from gan_cli.trained.sampling import TaskRunner

STEP, MORE = 20, 10
_SHORT = (
    f"train.steps={STEP}", "train.steps_per_call=10", "train.log_every=10", "train.sample_every=0",
    "train.checkpoint_every=10", "train.keep=1", "train.batch_size=16", "logger=none",
)  # fmt: skip
_TINY = ("model.latent_dim=4", "model.generator.width=4", "model.discriminator.width=4")
FIXTURES = {
    "mlp": _TINY,
    "dcgan": (*_TINY, "model=dcgan", "augment=[adaptive]", "penalty=[r1]", "penalty.r1.interval=4"),
    "conditional": (*_TINY, "model.conditional=projection", "strategy.n_critic=2", "optim@optim.discriminator=sgd"),
    "ensemble": (*_TINY, "train.ensemble={optim.lr:[1e-4,1e-3],seed:[1]}"),
    "ring": ("experiment=ring", *_TINY, "strategy=lookahead", "train.batch_size=16"),
    "schedule_free": (
        *_TINY, "optim=schedule_free", "metric=[fid,precision_recall]", "features=random", "train.eval_every=10",
        "train.eval_samples=100",
    ),
}  # fmt: skip


def main(folder: Path) -> None:
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name, overrides in FIXTURES.items():
            run = gan_cli.train([*overrides, *_SHORT, f"name={name}"], quiet=True).directory
            if name != "ring":  # one fixture with samples is enough, and the samples of ring are small
                for samples in run.rglob("samples"):
                    shutil.rmtree(samples)
            shutil.copytree(run, folder / name, ignore=shutil.ignore_patterns(".lock", ".hydra", "real.png"))
            expected = {"versions": provenance.facts(jax.devices())["versions"], "step": STEP, "runs": {}}
            for one in runs(run):
                expected["runs"][one.relative_to(run).as_posix()] = _expected(one)
            gan_cli.train([f"resume={run}", f"train.steps={STEP + MORE}"], quiet=True)
            for place_, found in expected["runs"].items():
                *_, last = (run / place_ / "metrics.jsonl").read_text().splitlines()
                record = json.loads(last)
                assert record["step"] == STEP + MORE
                found["losses"] = {key: value for key, value in record.items() if key.endswith("/loss")}
            text = json.dumps(expected) + "\n"
            (folder / name / "expected.json").write_text(text, encoding="utf-8")


def _expected(run: Path) -> dict[str, Any]:
    """The restored arrays, the key and the batch of the next step, and a few samples."""
    loaded = restore_run(run, data=True)
    e, step = loaded.experiment, loaded.step
    assert e.dataset is not None and step == STEP
    arrays = {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for name, array in checkpoints.by_name(loaded.state).items()
    }
    indices = randomness.order(e.dataset.feed, e.seed, step, 1, e.strategy.batches, e.train.batch_size).indices[""]
    runner = TaskRunner(e.game)
    samples = np.concatenate([np.asarray(part) for part in runner.numbered(loaded.state, 0, 4)])
    return {
        "arrays": arrays,
        "key": np.asarray(jax.random.key_data(randomness.step_key(e.seed, np.int32(step)))).tolist(),
        "indices": np.asarray(indices)[0].tolist(),
        "samples": samples.reshape(4, -1)[:, ::25].tolist(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
