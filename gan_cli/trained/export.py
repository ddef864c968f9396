"""Export of a generator as a program and a file of weights that can be used without this package."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors.numpy import save

from gan_cli.storage import files
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import averaged
from gan_cli.types import Tree

PLATFORMS = ("cpu", "cuda", "tpu")
_EXAMPLE = '''"""Draws {n} samples. Requires only jax, flatbuffers, numpy and safetensors."""

import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent
generator = jax.export.deserialize(bytearray((here / "generator.stablehlo").read_bytes()))
weights = load_file(here / "generator.safetensors")
latents = np.random.default_rng(0).standard_normal(({n}, {latent_dim}), np.float32)
samples = np.asarray(generator.call(weights, latents{labels}))
np.savez(sys.argv[1] if len(sys.argv) > 1 else "samples.npz", samples=samples)
print(samples.shape, samples.dtype)
'''


def write(run: RestoredRun, folder: Path) -> list[Path]:
    """Write files with the generator of a run into ``folder``, and return the paths of the files.

    The files are:

    - ``generator.stablehlo``: a program for any batch size, which ``jax.export.deserialize`` reads. Its arguments
      are a dictionary of the weights by name, latents ``[n, latent_dim]`` and, for a conditional game, int32
      labels ``[n]``.
    - ``generator.safetensors``: the weights by name. If the state contains moving averages, the weights are the
      moving averages.
    - ``generator.json``: the shapes and dtypes of the latents and labels, the shape and value range of the samples,
      the step of the checkpoint, the version of JAX and the platforms.
    - ``example.py``: a script that draws samples with the program and the weights.
    """
    game = run.experiment.game
    assert game.spec is not None
    x = game.spec["x"]
    low, high = x.bounds or (None, None)
    params, net_state = averaged(run.state)
    generator = {"params": params["generator"], "state": net_state["generator"]}
    leaves, structure = jax.tree_util.tree_flatten_with_path(generator)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    weights = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}

    def generate(weights: dict[str, jax.Array], latents: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        filled = jax.tree.unflatten(structure, [weights[name] for name in names])
        return game.decode({"generator": filled["params"]}, {"generator": filled["state"]}, latents, labels)

    (n,) = export.symbolic_shape("n")
    inputs: list[Tree] = [
        {name: jax.ShapeDtypeStruct(weight.shape, weight.dtype) for name, weight in weights.items()},
        jax.ShapeDtypeStruct((n, game.latent_dim), jnp.float32),
    ]
    if game.classes is not None:
        inputs.append(jax.ShapeDtypeStruct((n,), jnp.int32))
    program = export.export(jax.jit(generate), platforms=PLATFORMS)(*inputs)
    facts = {
        "latents": {"shape": ["n", game.latent_dim], "dtype": "float32", "distribution": "N(0, I)"},
        "labels": None if game.classes is None else {"shape": ["n"], "dtype": "int32", "classes": game.classes},
        "samples": {"shape": ["n", *x.shape], "low": low, "high": high},
        "step": run.step,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
    }
    labels = "" if game.classes is None else f", np.arange(16, dtype=np.int32) % {game.classes}"
    example = _EXAMPLE.format(n=16, latent_dim=game.latent_dim, labels=labels)
    written = {
        "generator.safetensors": save(weights),
        "generator.json": (json.dumps(facts, indent=2) + "\n").encode(),
        "example.py": example.encode(),
        "generator.stablehlo": bytes(program.serialize()),
    }
    for name, content in written.items():
        files.write_bytes(folder / name, content)
    return [folder / name for name in written]
