"""Layers of the networks of image translation, with the paddings of the published PyTorch networks.

All layers have the signature ``(x, *, train, key)`` and map images ``[n, h, w, c]`` to ``[n, h', w', c']``. The
method ``reads`` states on which input pixels a range of output pixels depends along one axis, so that a large image
can be processed in parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer

from gan_cli import threefry
from gan_cli.errors import UserError
from gan_cli.models import conv, layers, windows
from gan_cli.types import Feature, Initialiser

Span = tuple[int, int]  # the first and the last pixel of a range along one axis
_EPSILON = 1e-5
_GAIN = 0.02


def initialiser(name: Initialiser) -> Initializer:
    """The distribution of initial kernels: N(0, 0.02^2), or Glorot's normal distribution with gain 0.02.

    Isola et al. (2017) and Zhu et al. (2017) use ``normal``. The code of Park et al. (2020) uses ``xavier``.
    """
    if name == "normal":
        return nnx.initializers.normal(_GAIN)
    return nnx.initializers.variance_scaling(_GAIN**2, "fan_avg", "normal")


class Layer(nnx.Module):
    """A layer of a network of image translation. Unless a layer overrides ``reads``, it maps each pixel."""

    def reads(self, span: Span) -> Span:
        """The input pixels on which the output pixels ``span`` depend, apart from normalisation statistics."""
        return span

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        raise NotImplementedError


class Conv(Layer):
    """A convolution with zero padding, or a transposed convolution that doubles height and width.

    Args:
        kernel: height and width of the kernel.
        stride: distance in pixels by which the kernel moves.
        pad: number of zeros added at each side of the input, or of the output's gradient if transposed.
        transposed: whether the layer is a transposed convolution. ``pad`` must then be ``(kernel - 1) // 2``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        kernel: int,
        stride: int = 1,
        pad: int = 0,
        bias: bool = True,
        transposed: bool = False,
        init: Initializer,
    ):
        self.kernel, self.stride, self.pad, self.transposed = kernel, stride, pad, transposed
        shape = (kernel, kernel, outputs, inputs) if transposed else (kernel, kernel, inputs, outputs)
        apply = _convolution(stride, pad, transposed)
        axis = 2 if transposed else 3
        self.linear = layers.Linear(shape, apply, outputs, rngs, bias=bias, out_axis=axis, init=init)

    def reads(self, span: Span) -> Span:
        first, last = span
        if self.transposed:  # output j depends on the inputs i with 0 <= j + pad - i * stride < kernel
            return -((self.kernel - 1 - first - self.pad) // self.stride), (last + self.pad) // self.stride
        return first * self.stride - self.pad, last * self.stride - self.pad + self.kernel - 1

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.linear(x, train=train)


@functools.cache  # equal layers share one function, so that the graph definitions of equal networks are equal
def _convolution(stride: int, pad: int, transposed: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    function, pads = conv.conv_transpose if transposed else conv.conv, ((pad, pad), (pad, pad))
    return lambda x, kernel: function(x, kernel, stride, pads)


class ReflectionPad(Layer):
    """Adds ``pad`` pixels at each side, mirrored at the outermost pixel."""

    def __init__(self, pad: int):
        self.pad = pad

    def reads(self, span: Span) -> Span:
        return span[0] - self.pad, span[1] - self.pad

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return reflected(x, self.pad)


def reflected(x: jax.Array, pad: int) -> jax.Array:
    """Images ``[n, h, w, c]`` with ``pad`` more pixels at each side, mirrored at the outermost pixel."""
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")


class BatchNorm(layers.BatchNorm, Layer):
    """Batch normalisation whose initial scales have the distribution N(1, 0.02^2), as published."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        super().__init__(features)
        self.scale[...] = 1 + _GAIN * jax.random.normal(rngs.params(), (features,))

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:  # type: ignore[override]
        return super().__call__(x, train=train)

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        window = windows.current()
        return super().moments(x) if window is None else window.moments(x)


class InstanceNorm(Layer):
    """Normalisation of each channel of each image (Ulyanov et al. 2016), without parameters, as published."""

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        window = windows.current()
        if window is None:
            mean = wide.mean((1, 2), keepdims=True)
            var = jnp.square(wide - mean).mean((1, 2), keepdims=True)
        else:
            mean, var = window.moments(x)
        return ((wide - mean) * lax.rsqrt(var + _EPSILON)).astype(x.dtype)


class Identity(Layer):
    """Returns its input: the layer of ``norm=none``."""

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return x


def normalisation(norm: str, features: int, rngs: nnx.Rngs) -> Layer:
    """The normalisation layer ``norm``: ``batch``, ``instance`` or ``none``."""
    if norm == "batch":
        return BatchNorm(features, rngs)
    return InstanceNorm() if norm == "instance" else Identity()


class Dropout(Layer):
    """Dropout, active if ``train`` is true.

    The random numbers of a pixel depend on the key and on its position, so that tiles draw the same numbers as the
    whole image.
    """

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        if not self.rate or not train:
            return x
        n, height, width, channels = x.shape
        window = windows.current()
        top, left = (0, 0) if window is None else window.origin(x)

        def of_pixel(row: jax.Array, column: jax.Array) -> jax.Array:
            own = jax.random.fold_in(jax.random.fold_in(key, row), column)
            return threefry.bernoulli(own, 1 - self.rate, (n, channels))

        of_row = jax.vmap(of_pixel, (None, 0), 1)
        kept = jax.vmap(of_row, (0, None), 1)(top + jnp.arange(height), left + jnp.arange(width))
        return jnp.where(kept, x / (1 - self.rate), 0)


class Relu(Layer):
    """Rectifier."""

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return jax.nn.relu(x)


class LeakyRelu(Layer):
    """Leaky rectifier with slope 0.2."""

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return layers.ACTIVATIONS["leaky_relu"](x)


class BlurredHalving(Layer):
    """Anti-aliased halving (Zhang 2019): the filter [1, 2, 1] / 4 along each axis, with stride 2.

    The borders are padded by reflection.
    """

    def reads(self, span: Span) -> Span:
        return 2 * span[0] - 1, 2 * span[1] + 1

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        padded = reflected(x, 1)
        for axis in (1, 2):
            count = (x.shape[axis] + 1) // 2
            taps = [lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis) for i in range(3)]
            padded = 0.25 * taps[0] + 0.5 * taps[1] + 0.25 * taps[2]
        return padded


class BlurredDoubling(Layer):
    """Anti-aliased doubling (Zhang 2019): the transposed filter [1, 3, 3, 1] / 4 along each axis.

    The edges are replicated. This is linear interpolation between the centres of pixels.
    """

    def reads(self, span: Span) -> Span:
        return (span[0] - 1) // 2, (span[1] + 1) // 2

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        for axis in (1, 2):
            size = x.shape[axis]
            first = lax.slice_in_dim(x, 0, 1, axis=axis)
            last = lax.slice_in_dim(x, size - 1, size, axis=axis)
            before = jnp.concatenate([first, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
            after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
            pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
            x = pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
        return x


def reach(stack: Iterable[Layer], multiple: int) -> int:
    """The number of pixels beyond a block of ``multiple`` pixels on which the outputs of the block depend.

    The statistics of normalisation are left out: they depend on the whole image.

    Args:
        stack: the layers in the order of the computation.
        multiple: side in pixels of the aligned blocks.
    """
    span = (0, multiple - 1)
    for layer in reversed(list(stack)):
        span = layer.reads(span)
    return max(-span[0], span[1] - (multiple - 1), 0)


def run(stack: Iterable[Layer], x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
    """Applies layers in sequence and returns all their outputs. Each layer receives a different key."""
    outputs = []
    for i, layer in enumerate(stack):
        x = layer(x, train=train, key=jax.random.fold_in(key, i))
        outputs.append(x)
    return outputs


def check_images(model: str, *features: Feature) -> None:
    """Raises a UserError if a feature is not an image."""
    for feature in features:
        if len(feature.shape) != 3:
            raise UserError(
                f"model={model}: translates images, but the examples of the data set are {feature.noun}. Use "
                "model=mlp with game=gan."
            )


def check_numbers(numbers: tuple[int, ...], count: int, network: str) -> None:
    """Raises a UserError unless all ``numbers`` are numbers of layers.

    Args:
        numbers: the requested layers.
        count: number of layers.
        network: name of the network in the error message.
    """
    wrong = [number for number in numbers if not 0 <= number < count]
    if not wrong:
        return
    valid = [number for number in numbers if number not in wrong]
    if len(valid) < 2:  # e.g. the default numbers with a shallow network
        valid = sorted({round(i * (count - 1) / 4) for i in range(5)})
    raise UserError(
        f"game.layers: the {network} has no layer {wrong[0]}. Set "
        f"game.layers=[{','.join(map(str, valid))}]. Its layers are numbered from 0 to {count - 1}."
    )


def fitting_resolution(height: int, width: int, multiple: int, least: int = 1) -> str:
    """The value of ``dataset.resolution`` nearest to a size whose sides are multiples of ``multiple``.

    Args:
        height: height of the images in pixels.
        width: width of the images in pixels.
        multiple: number of which both sides must be multiples.
        least: smallest quotient of a side and ``multiple``.
    """
    sides = [max(round(side / multiple), least) * multiple for side in (height, width)]
    return str(sides[0]) if sides[0] == sides[1] else f"[{sides[0]},{sides[1]}]"
