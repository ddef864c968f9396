"""Export of a task as a program and a file of weights that can be used without this package."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core
from safetensors.numpy import save

from gan_cli.data.features import Image, Label
from gan_cli.data.text.feature import Tokens
from gan_cli.metrics.targets import GENERATE
from gan_cli.storage import files
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import TaskRunner, averaged
from gan_cli.trained.translation import SMALLEST
from gan_cli.types import ByPlayer, Feature, Tree

log = logging.getLogger(__name__)
PLATFORMS = ("cpu", "cuda", "tpu")
_ROWS = 16  # number of rows in the example
_EXAMPLE = '''"""{purpose} Requires only jax, flatbuffers, numpy and safetensors."""

import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent
{program} = jax.export.deserialize(bytearray((here / "{program}.stablehlo").read_bytes()))
weights = load_file(here / "{program}.safetensors")
{lines}
np.savez(sys.argv[1] if len(sys.argv) > 1 else "samples.npz", {saved})
print({main}.shape, {main}.dtype)
'''


def write(run: RestoredRun, folder: Path, task: str = GENERATE) -> list[Path]:
    """Write files with a task of a run into ``folder``, and return the paths of the files.

    The names of the files begin with ``generator`` for the task ``generate``, and with the name of any other task:

    - ``generator.stablehlo``: a program for any batch size, which ``jax.export.deserialize`` reads. Its arguments
      are a dictionary of the weights by name, and an array ``[n, ...]`` for each input of the task as networks see
      it; ``labels`` ``[n]`` is int32. The program returns an array, or a list of arrays for several outputs. If the
      task draws random numbers, row ``i`` always draws the numbers of the seed 0. If the task accepts images of any
      size, the program does so as well: height and width are multiples of ``Task.multiple``. If JAX cannot express
      a network for any size, a warning says so, and the program accepts images of the run's size only.
    - ``generator.safetensors``: the weights that the outputs depend on, by name. If the state contains moving
      averages, the weights are the moving averages.
    - ``generator.json``: the names of the task, the inputs and the outputs; the shapes, dtypes and value ranges of
      the inputs and outputs; the step of the checkpoint, the version of JAX and the platforms.
    - ``example.py``: a script that runs the program with the weights.
    """
    runner = TaskRunner(run.experiment.game, task)
    inputs, outputs = runner.task.inputs, runner.task.outputs
    program = "generator" if task == GENERATE else task
    params, net_state = averaged(run.state)
    everything = {name: {"params": params[name], "state": net_state[name]} for name in params}
    read, used, draws = _dependencies(runner, everything)
    # The weights of a single player have no prefix.
    chosen: Tree = everything[read[0]] if len(read) == 1 else {name: everything[name] for name in read}
    leaves, structure = jax.tree_util.tree_flatten_with_path(chosen)
    kept = jax.tree.leaves(used[read[0]] if len(read) == 1 else {name: used[name] for name in read})
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    weights = {
        name: np.asarray(leaf) for name, (_, leaf), needed in zip(names, leaves, kept, strict=True) if needed
    }

    def call(weights: dict[str, jax.Array], *arrays: jax.Array) -> jax.Array | list[jax.Array]:
        values = [weights.get(name, jnp.asarray(leaf)) for name, (_, leaf) in zip(names, leaves, strict=True)]
        filled = jax.tree.unflatten(structure, values)
        filled = {read[0]: filled} if len(read) == 1 else filled
        rows = arrays[0].shape[0]
        # Keys that no output depends on are zeros, because the program would contain the computation of other keys.
        keys = _keys(rows) if draws else jax.random.wrap_key_data(jnp.zeros((rows, 2), jnp.uint32))
        made = _apply(runner, everything | filled, dict(zip(inputs, arrays, strict=True)), keys)
        return made[0] if len(made) == 1 else made

    def exported(any_size: bool) -> export.Exported:
        shapes = {name: jax.ShapeDtypeStruct(weight.shape, weight.dtype) for name, weight in weights.items()}
        return export.export(jax.jit(call), platforms=PLATFORMS)(shapes, *_arguments(runner, any_size))

    any_size = runner.task.multiple is not None
    try:
        made = exported(any_size)
    except Exception as error:  # JAX raises errors of many kinds for programs that depend on a size
        if not any_size:
            raise
        log.warning(
            "--export %s: the program accepts images of the size of the run only, because JAX cannot express the "
            "task %s for any size (%s).",
            folder,
            task,
            str(error).partition("\n")[0],
        )
        any_size, made = False, exported(False)
    facts: dict[str, Any] = {
        _name(name): _facts(runner, name, feature, any_size) for name, feature in inputs.items()
    }
    facts.setdefault("labels", None)
    facts |= {name: _bounded({"shape": _shape(feature, any_size)}, feature) for name, feature in outputs.items()}
    if any_size:
        facts["multiple"] = runner.task.multiple
    facts |= {"task": task, "inputs": [_name(name) for name in inputs], "outputs": list(outputs)}
    facts |= {"step": run.step, "jax": jax.__version__, "platforms": PLATFORMS}
    written = {
        f"{program}.safetensors": save(weights),
        f"{program}.json": (json.dumps(facts, indent=2) + "\n").encode(),
        "example.py": _example(runner, program, any_size).encode(),
        f"{program}.stablehlo": bytes(made.serialize()),
    }
    for name, content in written.items():
        files.write_bytes(folder / name, content)
    return [folder / name for name in written]


def _keys(n: Any) -> jax.Array:
    """The random keys ``[n]`` of the rows, which ``TaskRunner`` uses for the seed 0."""
    key = jax.random.key(0)
    rows = jnp.arange(n, dtype=jnp.uint32)
    return jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), 1))(rows)


def _apply(
    runner: TaskRunner, players: Mapping[str, Any], inputs: dict[str, jax.Array], keys: jax.Array
) -> list[jax.Array]:
    """The outputs of the task in order."""
    params: ByPlayer = {name: player["params"] for name, player in players.items()}
    net_state: ByPlayer = {name: player["state"] for name, player in players.items()}
    made = runner.task.apply(params, net_state, inputs, keys)
    return [made[name] for name in runner.task.outputs]


def _arguments(runner: TaskRunner, any_size: bool) -> list[jax.ShapeDtypeStruct]:
    """The shapes of the inputs, for any number of rows and, with ``any_size``, for images of any size."""
    multiple = runner.task.multiple or 1
    least = -(-SMALLEST // multiple)
    # Constraints of sizes that no input has are errors.
    n, *size = export.symbolic_shape(
        "n, h, w" if any_size else "n", constraints=[f"h >= {least}", f"w >= {least}"] if any_size else ()
    )

    def shape(feature: Feature) -> tuple[Any, ...]:
        if any_size and isinstance(feature, Image):
            return n, *(multiple * side for side in size), feature.channels
        return n, *feature.shape

    return [jax.ShapeDtypeStruct(shape(feature), _dtype(feature)) for feature in runner.task.inputs.values()]


def _dependencies(runner: TaskRunner, everything: dict[str, Any]) -> tuple[list[str], dict[str, Any], bool]:
    """The players and the keys on which the outputs depend.

    Returns:
        A triple: the players on which the outputs depend, at least one; a mapping from the players to booleans in
        place of their leaves; whether the outputs depend on the keys.
    """
    inputs = {name: jnp.zeros((2, *feature.shape), _dtype(feature)) for name, feature in runner.task.inputs.items()}
    arguments = everything, _keys(2)
    jaxpr = jax.make_jaxpr(lambda players, keys: _apply(runner, players, inputs, keys))(*arguments).jaxpr
    live = {variable for variable in jaxpr.outvars if isinstance(variable, core.Var)}
    for equation in reversed(jaxpr.eqns):
        if live.intersection(equation.outvars):
            live |= {variable for variable in equation.invars if isinstance(variable, core.Var)}
    used, draws = jax.tree.unflatten(jax.tree.structure(arguments), [one in live for one in jaxpr.invars])
    players = [name for name, leaves in used.items() if any(jax.tree.leaves(leaves))]
    return players or list(everything)[:1], used, draws


def _dtype(feature: Feature) -> Any:
    """The dtype in which networks see a feature."""
    return jnp.int32 if np.dtype(feature.dtype) == np.int32 else jnp.float32


def _name(name: str) -> str:
    """The name of an input in files: the labels of the rows are ``labels``."""
    return "labels" if name == "label" else name


def _shape(feature: Feature, any_size: bool) -> list[Any]:
    return (
        ["n", "height", "width", feature.channels]
        if any_size and isinstance(feature, Image)
        else ["n", *feature.shape]
    )


def _facts(runner: TaskRunner, name: str, feature: Feature, any_size: bool) -> dict[str, Any]:
    described = {"shape": _shape(feature, any_size), "dtype": np.dtype(_dtype(feature)).name}
    if isinstance(feature, Label):
        return described | {"classes": feature.classes}
    if name in runner.drawn:
        value = _constant(runner, name)
        return described | ({"distribution": runner.task.distribution} if value is None else {"default": value})
    return _bounded(described, feature)


def _constant(runner: TaskRunner, name: str) -> float | int | None:
    """The value that the prior of a task gives every entry of an input, or None if it draws random values."""
    drawn = runner.inputs(0, 0, 2)[name]
    value: float | int = drawn.flat[0].item()
    return value if (drawn == value).all() else None


def _bounded(described: dict[str, Any], feature: Feature) -> dict[str, Any]:
    if isinstance(feature, Tokens):
        return described | {"unit": feature.unit, "end": feature.end, "vocabulary": feature.vocabulary}
    low, high = feature.bounds or (None, None)
    return described | {"low": low, "high": high}


def _example(runner: TaskRunner, program: str, any_size: bool) -> str:
    """The text of ``example.py``, which draws random latents, and uses zeros in place of data."""
    lines, arguments = [], ["weights"]
    for name, feature in runner.task.inputs.items():
        shape = f"({', '.join(map(str, (_ROWS, *feature.shape)))}{'' if feature.shape else ','})"
        if isinstance(feature, Label):
            arguments.append(f"np.arange({_ROWS}, dtype=np.int32) % {feature.classes}")
        elif name in runner.drawn:
            value = _constant(runner, name)
            drawn = f"np.random.default_rng(0).standard_normal({shape}, np.float32)"
            filled = f"np.full({shape}, {value}, np.{np.dtype(_dtype(feature)).name})"
            lines.append(f"{name} = {drawn if value is None else filled}")
            arguments.append(name)
        else:
            bounds = feature.bounds and f" with values from {feature.bounds[0]:g} to {feature.bounds[1]:g}"
            if any_size and isinstance(feature, Image):
                bounds = f"{bounds}. Height and width: multiples of {runner.task.multiple}"
            lines.append(
                f"{name} = np.zeros({shape}, np.{np.dtype(_dtype(feature)).name})  # put your {feature.noun} here"
                f"{bounds or ''}"
            )
            arguments.append(name)
    outputs, call = list(runner.task.outputs), f"{program}.call({', '.join(arguments)})"
    if len(outputs) == 1:
        lines.append(f"{outputs[0]} = np.asarray({call})")
    else:
        lines.append(f"{', '.join(outputs)} = map(np.asarray, {call})")
    purpose = (
        f"Draws {_ROWS} samples." if runner.name == GENERATE else f"Runs the task {runner.name} on {_ROWS} rows."
    )
    saved = ", ".join(f"{name}={name}" for name in outputs)
    return _EXAMPLE.format(purpose=purpose, program=program, lines="\n".join(lines), saved=saved, main=runner.main)
