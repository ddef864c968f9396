"""JAX version of the Inception network of 2015-12-05, which the FID and the Inception score use.

Szegedy et al. 2016 describe the network. The FID uses the last pooled features of the network (Heusel et al. 2017),
and the Inception score uses the class logits (Salimans et al. 2016). Metric values are comparable with published
values only if every detail matches the original TensorFlow graph. Resizing, pooling and weights therefore follow
this graph. The layers have the same names as in the published PyTorch conversion of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_cli.errors import UserError
from gan_cli.metrics import torch_weights

SOURCES = (
    "Download pt_inception-2015-12-05-6726825d.pth from the GitHub release fid_weights of mseitzer/pytorch-fid, or "
    "the same file as weights-inception-2015-12-05-6726825d.pth from release v0.2.0 of toshas/torch-fidelity. Then "
    "set features.weights (gan-train) or --weights (gan-eval) to the path of the downloaded file."
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
BATCH = 32

_SIDE = 299
_EPSILON = 1e-3
# All branches of a block receive the input of the block, and their outputs are concatenated. A branch is a tuple of
# layer names from the file of weights. "a|b" is a pair of layers with the same input and concatenated outputs. The
# suffixes "/1" and "/2" are the strides of layers without padding. All other layers preserve the resolution. In the
# last block, max pooling precedes branch_pool. In all other blocks with branch_pool, average pooling precedes it.
_STEM = (
    ("Conv2d_1a_3x3/2", "Conv2d_2a_3x3/1", "Conv2d_2b_3x3", "max/2", "Conv2d_3b_1x1", "Conv2d_4a_3x3/1", "max/2"),
)
_A = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    ("branch_pool",),
)
_B = (("branch3x3/2",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3/2"), ("max/2",))
_C = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    ("branch_pool",),
)
_D = (
    ("branch3x3_1", "branch3x3_2/2"),
    ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4/2"),
    ("max/2",),
)
_E = (
    ("branch1x1",),
    ("branch3x3_1", "branch3x3_2a|branch3x3_2b"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a|branch3x3dbl_3b"),
    ("branch_pool",),
)
_NETWORK = {
    "": _STEM,
    **{f"Mixed_5{block}.": _A for block in "bcd"},
    "Mixed_6a.": _B,
    **{f"Mixed_6{block}.": _C for block in "bcde"},
    "Mixed_7a.": _D,
    "Mixed_7b.": _E,
    "Mixed_7c.": (*_E[:-1], ("max", "branch_pool")),
}

Layer = tuple[jax.Array, jax.Array]
Params = dict[str, Layer]
HostParams = dict[str, tuple[np.ndarray, np.ndarray]]


class Network(NamedTuple):
    """Weights of the network: a dictionary from layer names to pairs of a kernel and a bias.

    Kernels are ``[height, width, in, out]``, and biases are ``[out]``. The kernel of the last layer, ``fc``, is
    ``[2048, 1008]``.
    """

    params: HostParams


def load(path: Path) -> Network:
    """Loads the weights from a file and folds batch normalisation into the convolutions.

    Raises:
        UserError: the file does not exist, cannot be read, or does not have the hash ``SHA256``.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise UserError(
                f"features.weights={path}: its SHA-256 is {found}, not {SHA256}. The file is damaged, or it is "
                f"another file. {SOURCES}"
            )
        tensors = torch_weights.read(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"features.weights={path}: {reason}. {SOURCES}") from error
    params = {name.removesuffix(".conv.weight"): _folded(tensors, name) for name in tensors if ".conv." in name}
    return Network(params | {"fc": (tensors["fc.weight"].T, tensors["fc.bias"])})


def _folded(tensors: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    weight, mean, variance, scale, shift = (
        tensors[name.replace("conv.weight", part)].astype(np.float64)
        for part in ("conv.weight", "bn.running_mean", "bn.running_var", "bn.weight", "bn.bias")
    )
    scale = scale / np.sqrt(variance + _EPSILON)
    kernel = weight.transpose(2, 3, 1, 0) * scale
    return kernel.astype(np.float32), (shift - mean * scale).astype(np.float32)


def apply(params: Params | HostParams, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A pair: the pooled features and the class logits of images.

    The logits omit the bias of the last layer, as in the code of published Inception scores (Salimans et al. 2016).

    Args:
        images: uint8 or uint16 ``[n, h, w, c]`` with one, three or four channels. The network takes three: grey is
            repeated, and RGBA is blended with white.

    Returns:
        Pooled features ``[n, 2048]`` and logits ``[n, 1008]``.
    """
    x = images.astype(jnp.float32) / (257 if images.dtype == jnp.uint16 else 1)
    if x.shape[-1] == 4:
        x = 255 + (x[..., :3] - 255) * (x[..., 3:] / 255)
    x = _resized((x - 128) / 128)
    outputs: tuple[jax.Array, jax.Array] = _network(params, jnp.broadcast_to(x, (*x.shape[:3], 3)))
    return outputs


@jax.jit  # compiled only once, because ``_resized`` gives all images the same height and width
def _network(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The features and the logits that ``apply`` returns, for resized images ``[n, 299, 299, 3]`` in [-1, 1]."""
    for prefix, branches in _NETWORK.items():
        layers = {name.removeprefix(prefix): layer for name, layer in params.items() if name.startswith(prefix)}
        x = _block(layers, branches, x)
    features = x.mean((1, 2))
    return features, jnp.matmul(features, params["fc"][0], precision="highest")


def _resized(x: jax.Array) -> jax.Array:
    """Images, resized to 299x299 by bilinear interpolation as in TensorFlow 1.

    Output pixel i is at input position i * size / 299, where size is the height or width of the input.
    """
    rows, columns = (_interpolation(size) for size in x.shape[1:3])
    return jnp.einsum("Hh,nhwc,Ww->nHWc", rows, x, columns, precision="highest")


def _interpolation(size: int) -> np.ndarray:
    """The interpolation matrix ``[299, size]`` of one axis, with float32 positions as in TensorFlow 1."""
    at = np.arange(_SIDE, dtype=np.float32) * np.float32(size / _SIDE)
    low = at.astype(int)
    share = (at - low.astype(np.float32))[:, None]
    one_hot = np.eye(size, dtype=np.float32)
    matrix: np.ndarray = (1 - share) * one_hot[low] + share * one_hot[np.minimum(low + 1, size - 1)]
    return matrix


def _block(layers: Params, branches: tuple[tuple[str, ...], ...], x: jax.Array) -> jax.Array:
    # One convolution computes all 1x1 convolutions of the input, including branch_pool. Averaging and 1x1
    # convolution commute. Averaging is cheaper after the convolution, because there are then fewer channels.
    heads = [name for name, *_ in branches if name in layers and layers[name][0].shape[:2] == (1, 1)]
    found: dict[str, jax.Array] = {}
    if heads:
        kernel, bias = (jnp.concatenate(parts, -1) for parts in zip(*(layers[head] for head in heads), strict=True))
        ends = np.cumsum([layers[head][1].size for head in heads])[:-1]
        found = dict(zip(heads, jnp.split(_conv(x, (kernel, bias)), ends, -1), strict=True))
    if "branch_pool" in found:
        found["branch_pool"] = _average(found["branch_pool"])
    outputs = []
    for first, *rest in branches:
        y, steps = (jax.nn.relu(found[first]), rest) if first in found else (x, [first, *rest])
        for step in steps:
            name, _, stride = step.partition("/")
            padding = "VALID" if stride else "SAME"
            if name == "max":
                y = _window(y, lax.max, -jnp.inf, int(stride or 1), padding)
            else:
                parts = [_conv(y, layers[part], int(stride or 1), padding) for part in name.split("|")]
                y = jax.nn.relu(jnp.concatenate(parts, -1))
        outputs.append(y)
    return jnp.concatenate(outputs, -1)


def _conv(x: jax.Array, layer: Layer, stride: int = 1, padding: str = "SAME") -> jax.Array:
    kernel, bias = layer
    layout = ("NHWC", "HWIO", "NHWC")
    # Full precision, because the lower default precision of accelerators slightly changes the metric values.
    y = lax.conv_general_dilated(x, kernel, (stride, stride), padding, None, None, layout, precision="highest")
    return y + bias


def _average(x: jax.Array) -> jax.Array:
    """3x3 average pooling of stride 1, where each average omits the positions outside the image."""
    cells = _window(jnp.ones((1, *x.shape[1:3], 1)), lax.add, 0.0, 1, "SAME")
    return _window(x, lax.add, 0.0, 1, "SAME") / cells


def _window(
    x: jax.Array, combine: Callable[[jax.Array, jax.Array], jax.Array], start: float, stride: int, padding: str
) -> jax.Array:
    y: jax.Array = lax.reduce_window(x, start, combine, (1, 3, 3, 1), (1, stride, stride, 1), padding)
    return y
