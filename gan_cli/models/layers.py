"""Layers of the networks: linear maps, normalisation, blocks of several operations, and minibatch statistics.

The ``__call__`` methods of all layers except ``Minibatch`` receive the flag ``train``. Layers change their state
only if this flag is true. ``Finish`` and ``Block`` also receive a PRNG key for dropout.

The option ``train.precision`` sets the dtype of the network's input, and each layer returns its output in the dtype
of its input. Parameters are stored in float32. Linear maps round their parameters to the dtype of the input and
compute in this dtype. Normalisation layers and statistics of a batch are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer

from gan_cli import threefry
from gan_cli.errors import UserError
from gan_cli.models import conv
from gan_cli.types import Feature

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
_EPSILON = 1e-5

_PROJECTION = nnx.initializers.normal(0.05)


class SpectralVector(nnx.Variable[jax.Array]):
    """A running estimate of a kernel's leading singular vector, for spectral normalisation."""


class Linear(nnx.Module):
    """A linear map with an optional bias and optional spectral normalisation.

    Args:
        shape: shape of the kernel.
        apply: ``(x, kernel) -> y``, the linear map.
        features: number of output features.
        spectral: whether to divide the kernel by its spectral norm.
        bias: whether to add a bias to each output feature.
        out_axis: axis of the kernel that contains the output features. For the spectral norm, the kernel is
            reshaped to the matrix ``[all other axes, features]``.
        init: initialiser of the kernel.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        apply: Callable[[jax.Array, jax.Array], jax.Array],
        features: int,
        rngs: nnx.Rngs,
        *,
        spectral: bool = False,
        bias: bool = True,
        out_axis: int = -1,
        init: Initializer,
    ):
        self.out_axis = out_axis
        self.apply = apply
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None
        u_key = rngs.params()
        self.u = SpectralVector(_unit(jax.random.normal(u_key, (features,)))) if spectral else None

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        kernel = self.kernel[...]
        if self.u is not None:
            kernel = self._spectral(kernel, train)
        y = self.apply(x, kernel.astype(x.dtype))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def _spectral(self, kernel: jax.Array, train: bool) -> jax.Array:
        """The kernel, divided by an estimate of its spectral norm (Miyato et al. 2018, algorithm 1).

        The estimate uses one power iteration. The stored singular vector is updated only if ``train`` is true.
        """
        assert self.u is not None
        matrix = jnp.moveaxis(kernel, self.out_axis, -1)
        matrix = matrix.reshape(-1, matrix.shape[-1])
        fixed = lax.stop_gradient(matrix)
        u = _unit(self.u[...])  # normalised, because a moving average of unit vectors is not a unit vector
        v = _unit(fixed @ u)
        if train:
            u = _unit(fixed.T @ v)
            self.u[...] = u
        return kernel / (v @ matrix @ u)


def dense(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """A dense layer: ``[batch, inputs]`` -> ``[batch, outputs]``."""
    return Linear((inputs, outputs), jnp.matmul, outputs, rngs, spectral=spectral, bias=bias, init=init)


def down(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """A 4x4 convolution of stride 2, which halves height and width."""
    return Linear((4, 4, inputs, outputs), _down, outputs, rngs, spectral=spectral, bias=bias, init=init)


def up(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """A transposed 4x4 convolution of stride 2, which doubles height and width."""
    shape = (4, 4, outputs, inputs)
    return Linear(shape, _up, outputs, rngs, spectral=spectral, bias=bias, out_axis=2, init=init)


def _down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv(x, kernel, 2)


def _up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv_transpose(x, kernel, 2)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


class BatchNorm(nnx.Module):
    """Batch normalisation of each channel, with statistics over the batch (Ioffe and Szegedy 2015).

    If ``train`` is false, the layer uses the running mean and variance instead of the statistics of the batch.
    """

    decay = 0.9

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        mean, var = self.mean[...], self.var[...]
        if train:
            batch_mean, batch_var = self.moments(x)
            self.mean[...] = self.decay * mean + (1 - self.decay) * lax.stop_gradient(batch_mean)
            self.var[...] = self.decay * var + (1 - self.decay) * lax.stop_gradient(batch_var)
            mean, var = batch_mean, batch_var
        scale = self.scale[...] * lax.rsqrt(var + _EPSILON)
        return (x * scale + (self.bias[...] - mean * scale)).astype(x.dtype)

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A pair: the mean and the variance ``[features]`` of each channel of a batch, in float32."""
        # On a CPU, two-dimensional arrays and a single multiply-add compile to fewer and larger loops.
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        mean = rows.mean(0)
        return mean, jnp.square(rows - mean).mean(0)


class LayerNorm(nnx.Module):
    """Layer normalisation over all values of an example, with a scale and a bias per channel (Ba et al. 2016)."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        axes = tuple(range(1, x.ndim))
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axes, keepdims=True)
        var = jnp.square(centred).mean(axes, keepdims=True)
        return (centred * lax.rsqrt(var + _EPSILON) * self.scale[...] + self.bias[...]).astype(x.dtype)


class Finish(nnx.Module):
    """The operations after a linear map: normalisation, activation and dropout, in this order."""

    def __init__(self, features: int, *, norm: str, activation: str, dropout: float):
        self.norm = {"batch": BatchNorm, "layer": LayerNorm}[norm](features) if norm in ("batch", "layer") else None
        self.activation = activation
        self.dropout = dropout

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        if self.norm is not None:
            x = self.norm(x, train=train)
        x = ACTIVATIONS[self.activation](x)
        return dropout(x, self.dropout, train=train, key=key)


def dropout(x: jax.Array, rate: float, *, train: bool, key: jax.Array) -> jax.Array:
    """If ``train``, sets each value to 0 with probability ``rate``, and divides the others by ``1 - rate``.

    Srivastava et al. 2014, section 4, but with the factor in training instead of sampling.
    """
    if not (rate and train):
        return x
    return jnp.where(threefry.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class Block(nnx.Module):
    """A linear map, then normalisation, activation and dropout.

    Args:
        linear: function that creates the linear map: ``dense``, ``down`` or ``up``.
        norm: ``none``, ``batch``, ``layer`` or ``spectral``. Spectral normalisation applies to the kernel. Batch
            and layer normalisation apply to the output of the linear map.
    """

    def __init__(
        self,
        linear: Callable[..., Linear],
        inputs: int,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        norm: str,
        activation: str,
        dropout: float,
        init: Initializer,
    ):
        # Batch normalisation subtracts the mean, which would cancel a bias.
        self.linear = linear(inputs, outputs, rngs, init=init, spectral=norm == "spectral", bias=norm != "batch")
        self.finish = Finish(outputs, norm=norm, activation=activation, dropout=dropout)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.finish(self.linear(x, train=train), train=train, key=key)


class Minibatch(nnx.Module):
    """Appends a statistic of the batch to features ``[batch, features]``.

    The statistic measures how similar the examples of a batch are, so that a discriminator can detect mode
    collapse.

    Args:
        kind: the statistic. With ``none``, the layer appends nothing. With ``std``, the layer appends one value,
            the standard deviation over the batch, averaged over the features (Karras et al. 2018, section 3). The
            code of Karras et al. computes the standard deviation over groups of 4 examples instead of the whole
            batch. With ``discrimination``, the layer appends 100 values, one for each of 100 learnt projections to
            5 dimensions. Each value is the sum of exp(-d) over all other examples of the batch, where d is the L1
            distance between the two projected examples (Salimans et al. 2016, section 3.2). As in the code of
            Salimans et al., the columns of the projections are normalised and multiplied by learnt factors.
            Without normalisation, most sums would be almost zero for a large number of features.
        features: number of input features.

    Attributes:
        features: number of output features.
    """

    _kernels, _dimensions = 100, 5

    def __init__(self, kind: str, features: int, rngs: nnx.Rngs):
        self.kind = kind
        learnt, shape = kind == "discrimination", (features, self._kernels * self._dimensions)
        self.projection = nnx.Param(_PROJECTION(rngs.params(), shape, jnp.float32)) if learnt else None
        self.log_length = nnx.Param(jnp.zeros(shape[1])) if learnt else None  # logarithms of the learnt factors
        self.features = features + {"none": 0, "std": 1, "discrimination": self._kernels}[kind]

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "none":
            return x
        if self.projection is None or self.log_length is None:
            # The constant 1e-8 is added because the derivative of the square root is infinite at zero.
            spread = jnp.sqrt(jnp.var(x.astype(jnp.float32), axis=0) + 1e-8).mean()
            more = jnp.broadcast_to(spread, (len(x), 1))
        else:
            columns = self.projection[...]
            columns = columns * (jnp.exp(self.log_length[...]) / jnp.linalg.norm(columns, axis=0))
            points = (x @ columns.astype(x.dtype)).astype(jnp.float32)
            points = points.reshape(len(x), self._kernels, self._dimensions)
            apart = jnp.abs(points[:, None] - points[None]).sum(-1)
            more = jnp.exp(-apart).sum(1) - 1  # minus exp(0) = 1, the term of the example itself
        return jnp.concatenate([x, more.astype(x.dtype)], axis=1)


def each_block(blocks: nnx.List[Block], x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
    """Applies the blocks in sequence, and returns ``x`` and the outputs of all blocks as a list.

    Each block receives a different key.
    """
    outputs = [x]
    for i, block in enumerate(blocks):
        outputs.append(block(outputs[-1], train=train, key=jax.random.fold_in(key, i)))
    return outputs


def stages(
    model: str, feature: Feature, depth: int | None = None, option: str = "dataset.resolution"
) -> tuple[tuple[int, int], int]:
    """A pair: the lowest height and width in a network, and the number of doublings to the size of the images.

    Args:
        model: name of the model in error messages.
        depth: number of doublings. If None, the number is as large as possible, so that the shorter side of the
            lowest resolution is between 4 and 7 pixels.
        option: the option of data sets for the size of the images.

    Raises:
        UserError: the data are not images, or their height and width cannot be halved as often as required.
    """
    if len(feature.shape) != 3:
        raise UserError(
            f"model={model}: generates images, but the examples of the data set are {feature.noun}. Use model=mlp."
        )
    height, width, count = *feature.shape[:2], 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8 and count != depth:
        height, width, count = height // 2, width // 2, count + 1
    if count == 0 or (depth is not None and count != depth) or (depth is None and min(height, width) > 7):
        requirement = (
            "The shorter side must be 4, 5, 6 or 7 times a power of two and at least 8, and the other side a "
            "multiple of this power, e.g. 28, 32, 64, [24,40] or [96,160]."
            if depth is None
            else f"With depth={depth}, both sides must be multiples of {2**depth} and at least {4 * 2**depth}."
            " To choose the depth automatically, set model.generator.depth=null model.discriminator.depth=null."
        )
        raise UserError(
            f"model={model}: cannot generate {feature.noun} of {' x '.join(map(str, feature.shape))}. "
            f"{requirement} If the data set has the option {option}, set it, e.g. "
            f"{option}={_nearest_size(feature, depth)}. Otherwise, use model=mlp."
        )
    return (height, width), count


def _nearest_size(feature: Feature, depth: int | None) -> str:
    """A height and width near the size of the images for which ``stages`` succeeds, as a value of an option."""
    height, width, _ = feature.shape
    if depth is None:
        doublings = max((min(height, width) // 4).bit_length() - 1, 1)
        most = 7
    else:
        doublings, most = depth, max(height, width)
    unit = 2**doublings
    scale = min(1.0, most * unit / min(height, width))
    height, width = (unit * max(round(side * scale / unit), 4) for side in (height, width))
    return str(height) if height == width else f"[{height},{width}]"
