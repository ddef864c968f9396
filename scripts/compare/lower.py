"""Lower the compiled steps of many configurations to StableHLO, and draw samples from the runs of the fixtures.

    python scripts/compare/lower.py OUT FIXTURES [--steps 20] [NAME ...]

The script uses the package ``gan_cli`` that Python finds first. It writes ``OUT/programs.json``. For each
configuration, this file contains the normalised StableHLO of the steps, and a hash of the initial state. For each
run of the fixtures, it contains the SHA-256 hash of the samples that ``gan-sample`` draws. With ``--steps``, the
script instead trains the named configurations for this number of steps, and writes the arrays to ``OUT/NAME.npz``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

try:
    from gan_cli.config.build import experiment
except ImportError:  # early commits define the function in another module
    from gan_cli.cli.train import experiment  # type: ignore[no-redef]

_SMALL = ("train.batch_size=8", "train.steps=20", "train.steps_per_call=5", "train.log_every=5",
          "train.sample_every=0", "train.checkpoint_every=0", "logger=none")  # fmt: skip
_TINY = ("model.latent_dim=4", "model.generator.width=8", "model.discriminator.width=8")
_PLAIN = ("model.discriminator.dropout=0.0",)

# The configurations cover every strategy, optimiser, model, loss, penalty and augmentation, and two ensembles.
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "default": _TINY,
    "dcgan": (*_TINY, "model=dcgan", "optim=sgd", "optim.schedule=cosine", "optim.warmup_steps=4"),
    "resnet": (*_TINY, "model=resnet", "loss=hinge", "optim=momentum", "optim.nesterov=true"),
    "r3gan": ("experiment=r3gan", *_TINY, "train.steps_per_call=5", "train.log_every=5"),
    "pacgan": ("experiment=pacgan_grid", "dataset.size=1000"),
    "ring": ("experiment=ring", *_TINY, "dataset.size=1000"),
    "dirac": ("experiment=dirac_gan", "augment=[noise]", "augment.noise.anneal_steps=10", "penalty=[r1]"),
    "bilinear": ("experiment=bilinear", "strategy=extragradient"),
    "quadratic": ("experiment=quadratic", "strategy=consensus"),
    "simultaneous": (*_TINY, "strategy=simultaneous", "optim=amsgrad", "loss=lsgan", "optim.clip_norm=1"),
    "extragradient": (*_TINY, "strategy=extragradient", "optim=adabelief", "loss=wgan", "penalty=[wgan_gp]"),
    "optimistic": (*_TINY, "strategy=optimistic", "optim=optimistic_adam", "loss=relativistic_average"),
    "lookahead": (*_TINY, "strategy=lookahead", "optim=adamw", "penalty=[orthogonal,consistency]"),
    "unrolled": (*_TINY, "strategy=unrolled", "strategy.depth=2", "optim=rmsprop", "loss=fgan"),
    "consensus": (*_TINY, "strategy=consensus", "optim=lion", "loss=minimax", "loss.smoothing=0.1"),
    "symplectic": (*_TINY, "strategy=symplectic", "optim=muon", "optim.clip_value=0.1"),
    "competitive": (*_TINY, *_PLAIN, "strategy=competitive", "strategy.iterations=3", "optim=sgd",
                    "optim.clip_norm=null"),
    "schedule_free": (*_TINY, "optim=schedule_free"),
    "two_optimisers": (*_TINY, "optim@optim.discriminator=sgd", "optim.generator.lr=1e-4", "optim.b2_start=0.9"),
    "critic": (*_TINY, "strategy.n_critic=3", "strategy.fresh_latents=true", "optim.weight_clip=0.05",
               "penalty=[r1,r2]", "penalty.r1.interval=4", "penalty.r2.gamma_end=0.1"),
    "normalised": (*_TINY, "model.generator.norm=batch", "model.discriminator.norm=batch", "penalty=[dragan]",
                   "model.discriminator.norm=layer", "dataset.flip=true"),
    "spectral": (*_TINY, "model.discriminator.norm=spectral", "penalty=[one_sided_gp]", "loss=relativistic"),
    "augmented": (*_TINY, "augment=[adaptive,diffaugment,packing]", "model.discriminator.minibatch=std"),
    "minibatch": (*_TINY, "model=dcgan", "model.discriminator.minibatch=discrimination"),
    "projection": (*_TINY, "model.conditional=projection"),
    "concat": (*_TINY, "model=dcgan", "model.conditional=concat"),
    "acgan": (*_TINY, "model.conditional=acgan"),
    "bfloat16": (*_TINY, "train.precision=bfloat16"),
    "ensemble": (*_TINY, "train.ensemble={optim.lr:[1e-4,2e-4],seed:[1,2]}"),
    "ensemble_dcgan": (*_TINY, "model=dcgan", "train.ensemble=2", "train.on_nan=continue"),
    "streamed": (*_TINY, "dataset=folder", "dataset.path={images}", "dataset.stream=true", "dataset.flip=true"),
}  # fmt: skip


def normalised(text: str) -> str:
    """A StableHLO text without names of Python arguments, and with symbols renamed in the order of appearance."""
    text = re.sub(r'jax\.(result_info|arg_info) = "(?:[^"\\]|\\.)*"', r"\1", text)
    names: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        name = match.group(0)
        return names.setdefault(name, f"{name[0]}{len(names)}")

    return re.sub(r"[%@][\w.$-]+", renamed, text)


def compiled(overrides: list[str]) -> Any:
    """The compiled steps of a configuration (``CompiledSteps``, or ``Program`` in early commits)."""
    made = experiment(overrides)
    if hasattr(made, "compile"):
        return made.compile()
    from gan_cli.program import Program

    program = Program(made)
    program.next_length = program.call
    return program


def lowered(program: Any) -> dict[str, str]:
    """The normalised StableHLO of the steps (``steps``), and a hash of the initial state (``init``)."""
    state = program.init()
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return {"steps": normalised(program.lower(state, 5).as_text()), "init": digest.hexdigest()}


def trained(program: Any, steps: int) -> dict[str, np.ndarray]:
    """The arrays of the training state after ``steps`` steps, as a mapping from their indices, written as text."""
    state, step = program.init(), 0
    while step < steps:
        length = program.next_length(step)
        state, *_ = program.run(state, step)
        step += length
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def sampled(run: Path) -> str:
    """The SHA-256 hash of the arrays that ``gan-sample`` writes for a run."""
    from gan_cli.cli.sample import main as gan_sample

    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        out = Path(place) / "samples.npz"
        if gan_sample([str(run), "--num", "16", "--seed", "3", "--out", str(out)]):
            return "failed"
        arrays = np.load(out)
        digest = hashlib.sha256()
        for name in sorted(arrays.files):
            digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def images(folder: Path) -> None:
    """Write 24 random colour images to ``folder``. The configuration ``streamed`` trains with them."""
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i:02}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder for the results")
    parser.add_argument("fixtures", type=Path, help="the folder with run directories of earlier versions")
    parser.add_argument("names", nargs="*", help="the configurations to lower or train (default: all)")
    parser.add_argument("--steps", type=int, help="train for this number of steps (default: lower, do not train)")
    options = parser.parse_intermixed_args()
    out = options.out.resolve()
    found: dict[str, Any] = {"programs": {}, "samples": {}}
    with tempfile.TemporaryDirectory() as place:
        images(Path(place))
        for name in options.names or CONFIGURATIONS:
            overrides = [o.format(images=place) if "{images}" in o else o for o in CONFIGURATIONS[name]]
            program = compiled([*_SMALL, *overrides])
            print(name, flush=True, file=sys.stderr)
            try:
                if options.steps:
                    np.savez(out / f"{name}.npz", **trained(program, options.steps))  # type: ignore[arg-type]
                else:
                    found["programs"][name] = lowered(program)
            finally:
                program.close()
    if not options.steps:
        for expected in sorted(options.fixtures.resolve().glob("*/*/expected.json")):
            for run in json.loads(expected.read_text())["runs"]:
                directory = expected.parent / run
                found["samples"][f"{expected.parent.name}/{run}"] = sampled(directory)
        (out / "programs.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
