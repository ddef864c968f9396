"""What the networks are made of: linear maps, normalisation, and the block that puts them in order.

Modules take ``train`` and ``key`` when called: randomness comes in from outside, so that a step is a function
of its key. Only ``train=True`` changes state. Layers compute in the type of their input (``train.precision``):
parameters are kept in float32 and rounded where they are used, and statistics are taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from gan_cli.errors import UserError
from gan_cli.models import conv
from gan_cli.types import Spec

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
_EPSILON = 1e-5

Initializer = nnx.initializers.Initializer
_PROJECTION = nnx.initializers.normal(0.05)


class SpectralVector(nnx.Variable):
    """The running estimate of a kernel's leading singular vector."""


class Linear(nnx.Module):
    """A kernel and, with ``bias``, an offset, the kernel optionally divided by its spectral norm.

    ``apply(x, kernel)`` is the linear map; ``out_axis`` is the kernel's axis of output features, so that the
    matrix whose spectral norm counts is ``[everything else, features]``.
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
        """kernel / sigma(kernel), after one power iteration (Miyato et al. 2018, algorithm 1)."""
        assert self.u is not None
        matrix = jnp.moveaxis(kernel, self.out_axis, -1)
        matrix = matrix.reshape(-1, matrix.shape[-1])
        fixed = lax.stop_gradient(matrix)
        u = _unit(self.u[...])  # of a moving average it is not of length 1
        v = _unit(fixed @ u)
        if train:
            u = _unit(fixed.T @ v)
            self.u[...] = u
        return kernel / (v @ matrix @ u)


def dense(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """``[batch, inputs]`` -> ``[batch, outputs]``."""
    return Linear((inputs, outputs), jnp.matmul, outputs, rngs, spectral=spectral, bias=bias, init=init)


def down(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """A 4x4 convolution of stride 2: half the height and width."""
    return Linear((4, 4, inputs, outputs), _down, outputs, rngs, spectral=spectral, bias=bias, init=init)


def up(
    inputs: int, outputs: int, rngs: nnx.Rngs, *, init: Initializer, spectral: bool = False, bias: bool = True
) -> Linear:
    """A transposed 4x4 convolution of stride 2: twice the height and width."""
    shape = (4, 4, outputs, inputs)
    return Linear(shape, _up, outputs, rngs, spectral=spectral, bias=bias, out_axis=2, init=init)


def _down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv(x, kernel, 2)


def _up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv_transpose(x, kernel, 2)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


class BatchNorm(nnx.Module):
    """Normalisation by the batch's mean and variance a channel (Ioffe and Szegedy 2015).

    ``train=False`` uses running statistics instead.
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
            # As rows of channels, and one multiply-add at the end: fewer and larger loops on a CPU.
            rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
            batch_mean = rows.mean(0)
            batch_var = jnp.square(rows - batch_mean).mean(0)
            self.mean[...] = self.decay * mean + (1 - self.decay) * lax.stop_gradient(batch_mean)
            self.var[...] = self.decay * var + (1 - self.decay) * lax.stop_gradient(batch_var)
            mean, var = batch_mean, batch_var
        scale = self.scale[...] * lax.rsqrt(var + _EPSILON)
        return (x * scale + (self.bias[...] - mean * scale)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over all of an example's values (Ba et al. 2016), a scale and bias a channel."""

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
    """What follows a linear map: normalisation, activation, dropout, in this order."""

    def __init__(self, features: int, *, norm: str, activation: str, dropout: float):
        self.norm = {"batch": BatchNorm, "layer": LayerNorm}[norm](features) if norm in ("batch", "layer") else None
        self.activation = activation
        self.dropout = dropout

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        if self.norm is not None:
            x = self.norm(x, train=train)
        x = ACTIVATIONS[self.activation](x)
        if self.dropout and train:
            kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0)
        return x


class Block(nnx.Module):
    """A linear map and its finish.

    Args:
        linear: one of ``dense``, ``down`` and ``up``.
        norm: none, batch, layer; or spectral, which normalises the kernel instead of the values.
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
        # A bias before a normalisation that subtracts the mean would never have an effect.
        self.linear = linear(inputs, outputs, rngs, init=init, spectral=norm == "spectral", bias=norm != "batch")
        self.finish = Finish(outputs, norm=norm, activation=activation, dropout=dropout)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.finish(self.linear(x, train=train), train=train, key=key)


class Minibatch(nnx.Module):
    """Appends to features ``[batch, features]`` what tells how alike the batch is, so that a discriminator can see
    a generator that makes one thing only.

    Args:
        kind: none; std, the features' standard deviation over the batch, averaged to one number (Karras et al.
            2018, section 3; over the whole batch, where their code has groups of 4); discrimination, for each of
            100 learnt projections to 5 numbers the sum over the batch of exp(-L1 distance) to the example (Salimans
            et al. 2016, section 3.2; normalised as in their code, else most are zero where features are many).
    """

    _kernels, _dimensions = 100, 5

    def __init__(self, kind: str, features: int, rngs: nnx.Rngs):
        self.kind = kind
        learnt, shape = kind == "discrimination", (features, self._kernels * self._dimensions)
        self.projection = nnx.Param(_PROJECTION(rngs.params(), shape, jnp.float32)) if learnt else None
        self.log_length = nnx.Param(jnp.zeros(shape[1])) if learnt else None  # of the projection's columns
        self.features = features + {"none": 0, "std": 1, "discrimination": self._kernels}[kind]

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "none":
            return x
        if self.projection is None or self.log_length is None:
            # The root's own derivative at zero is infinite.
            spread = jnp.sqrt(jnp.var(x.astype(jnp.float32), axis=0) + 1e-8).mean()
            more = jnp.broadcast_to(spread, (len(x), 1))
        else:
            columns = self.projection[...]
            columns = columns * (jnp.exp(self.log_length[...]) / jnp.linalg.norm(columns, axis=0))
            points = (x @ columns.astype(x.dtype)).astype(jnp.float32)
            points = points.reshape(len(x), self._kernels, self._dimensions)
            apart = jnp.abs(points[:, None] - points[None]).sum(-1)
            more = jnp.exp(-apart).sum(1) - 1  # without the example itself
        return jnp.concatenate([x, more.astype(x.dtype)], axis=1)


def each_block(blocks: nnx.List, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
    """``x``, and what each block in order makes of what the one before it made; each has a key of its own."""
    made = [x]
    for i, block in enumerate(blocks):
        made.append(block(made[-1], train=train, key=jax.random.fold_in(key, i)))
    return made


def stages(model: str, spec: Spec, depth: int | None = None) -> tuple[int, int]:
    """The side of the smallest image, and how many times it doubles to the data's side.

    Raises:
        UserError: the data are not square images whose side halves ``depth`` times to 4 or more.
    """
    shape = " x ".join(map(str, spec.shape))
    if not spec.is_image or spec.shape[0] != spec.shape[1]:
        raise UserError(
            f"model={model} makes square images, and the data's examples are {shape}: use model=mlp, or set "
            "dataset.resolution where the data set has it."
        )
    side, count = spec.shape[0], 0
    while side % 2 == 0 and side // 2 >= 4 and count != depth:
        side, count = side // 2, count + 1
    if count == 0 or (depth is not None and count != depth) or (depth is None and side > 7):
        asked = "" if depth is None else f" with depth={depth}"
        raise UserError(
            f"model={model}{asked} cannot make {shape}: the side must halve to between 4 and 7, e.g. 16, 28, 32, "
            "64, 128. Set dataset.resolution where the data set has it, or use model=mlp."
        )
    return side, count
