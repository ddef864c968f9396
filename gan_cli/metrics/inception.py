"""The Inception network of the FID (Szegedy et al. 2016; Heusel et al. 2017): that of TensorFlow, 2015-12-05.

Its weights, 95 MB, have been converted for PyTorch once, and are what the field's figures are of. Each convolution
is followed by a normalisation, which is folded into its kernel here, and a ReLU.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_cli.errors import UserError
from gan_cli.metrics import torchfile
from gan_cli.types import Tree

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SOURCES = (
    "The field takes pt_inception-2015-12-05-6726825d.pth from the releases of github.com/toshas/torch-fidelity "
    "or github.com/mseitzer/pytorch-fid."
)
BATCH = 50
SIDE = 299
_EPSILON = 1e-3  # of the normalisations

# A block's chains of convolutions, each of its input; the results are put side by side, and last that of the pooled
# input. A pair in a chain reads the same, and its results are put side by side too.
_A = [["branch1x1"], ["branch5x5_1", "branch5x5_2"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]]
_B = [["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]]
_C = [["branch1x1"], [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]]
_D = [["branch3x3_1", "branch3x3_2"], [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)]]
_E = [
    ["branch1x1"],
    ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
    ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")],
]
_HALVING = {"branch3x3", "branch3x3dbl_3", "branch3x3_2", "branch7x7x3_4"}  # of the blocks that halve the side
_BLOCKS: list[tuple[str, list, str]] = [
    *((f"Mixed_5{i}", _A, "mean") for i in "bcd"),
    ("Mixed_6a", _B, "halve"),
    *((f"Mixed_6{i}", _C, "mean") for i in "bcde"),
    ("Mixed_7a", _D, "halve"),
    ("Mixed_7b", _E, "mean"),
    ("Mixed_7c", _E, "max"),
]


@dataclass(frozen=True)
class Weights:
    """Kernel ``[h, w, in, out]`` and offset ``[out]`` of each convolution by name, and the last layer's kernel."""

    params: Tree


def load(path: Path) -> Weights:
    """The weights in a file.

    Raises:
        UserError: there is no such file, or it is not the one.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"features.weights={path}: {error.strerror}. {SOURCES}") from error
    if found != SHA256:
        raise UserError(f"features.weights={path}: its SHA-256 is {found}, and should be {SHA256}. {SOURCES}")
    return Weights(fold(torchfile.read(path)))


def fold(arrays: dict[str, np.ndarray]) -> Tree:
    """The network's parameters from a state dictionary: each normalisation becomes a part of its kernel."""
    params: dict[str, tuple[np.ndarray, ...]] = {"fc": (arrays["fc.weight"].T.astype(np.float32),)}
    for name in (key.removesuffix(".conv.weight") for key in arrays if key.endswith(".conv.weight")):
        kernel, bn = arrays[f"{name}.conv.weight"].astype(np.float64), f"{name}.bn."
        scale = arrays[f"{bn}weight"] / np.sqrt(arrays[f"{bn}running_var"].astype(np.float64) + _EPSILON)
        offset = arrays[f"{bn}bias"] - arrays[f"{bn}running_mean"] * scale
        folded = kernel.transpose(2, 3, 1, 0) * scale
        params[name] = folded.astype(np.float32), offset.astype(np.float32)
    return params


def apply(params: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """uint8 images ``[n, h, w, c]``, grey or in colours -> features ``[n, 2048]``, and the logits of 1008 classes
    without their offsets, which is how the Inception score has been computed since."""
    x = _resize(images.astype(jnp.float32))
    x = jnp.broadcast_to((x - 128) / 128, (*x.shape[:3], 3))
    conv = functools.partial(_conv, params)
    x = conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 2, "VALID"), 1, "VALID")
    x = _max(conv("Conv2d_2b_3x3", x), 2, "VALID")
    x = _max(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x), 1, "VALID"), 2, "VALID")
    for name, chains, pooling in _BLOCKS:
        x = _block(params, name, chains, pooling, x)
    features = x.mean((1, 2))
    return features, jnp.matmul(features, params["fc"][0], precision="highest")


def _block(params: Tree, name: str, chains: list, pooling: str, x: jax.Array) -> jax.Array:
    """The chains' results side by side, and that of the pooled input."""
    conv = functools.partial(_conv, params)
    stride, padding = (2, "VALID") if pooling == "halve" else (1, "SAME")
    # All 1x1 convolutions of the block's input are one matrix product; so is that of its mean, which commutes.
    heads = [chain[0] for chain in chains if params[f"{name}.{chain[0]}"][0].shape[:2] == (1, 1)]
    together = [*heads, "branch_pool"] if pooling == "mean" else heads
    kernels = [params[f"{name}.{head}"][0][0, 0] for head in together]
    product = jnp.matmul(x, jnp.concatenate(kernels, axis=1))
    ends = np.cumsum([kernel.shape[1] for kernel in kernels])
    linear = dict(zip(together, jnp.split(product, ends[:-1], axis=-1), strict=True))
    found = []
    for chain in chains:
        y = x
        for step in chain:
            if step in linear:
                y = jax.nn.relu(linear[step] + params[f"{name}.{step}"][1])
            elif isinstance(step, tuple):
                y = jnp.concatenate([conv(f"{name}.{part}", y) for part in step], axis=-1)
            else:
                y = conv(f"{name}.{step}", y, *((stride, padding) if step in _HALVING else ()))
        found.append(y)
    if pooling == "mean":
        found.append(jax.nn.relu(_mean(linear["branch_pool"]) + params[f"{name}.branch_pool"][1]))
    elif pooling == "max":
        found.append(conv(f"{name}.branch_pool", _max(x, 1, "SAME")))
    else:
        found.append(_max(x, 2, "VALID"))
    return jnp.concatenate(found, axis=-1)


def _conv(params: Tree, name: str, x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    kernel, offset = params[name]
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dimensions)
    return jax.nn.relu(y + offset)


def _max(x: jax.Array, stride: int, padding: str) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean(x: jax.Array) -> jax.Array:
    """Of each place's 3x3 neighbours, as many as there are."""
    total = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    sides = [np.convolve(np.ones(side), np.ones(3), "same") for side in x.shape[1:3]]
    return total / np.outer(*sides)[:, :, None].astype(np.float32)


def _resize(x: jax.Array) -> jax.Array:
    """Bilinear, to 299x299, as TensorFlow 1 did: output i is at i * in / out, not at the middle of a pixel."""
    down, across = (_weights(side) for side in x.shape[1:3])
    x = jnp.einsum("oh,nhwc->nowc", down, x, precision="highest")
    return jnp.einsum("pw,nowc->nopc", across, x, precision="highest")


def _weights(side: int) -> np.ndarray:
    """What each of ``side`` rows adds to each of the resized ones, ``[299, side]``."""
    places = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    low = places.astype(int)
    share = places - low
    weights = np.zeros((SIDE, side), np.float32)
    np.add.at(weights, (np.arange(SIDE), low), 1 - share)
    np.add.at(weights, (np.arange(SIDE), np.minimum(low + 1, side - 1)), share)
    return weights
