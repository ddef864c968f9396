"""Recurrent networks of gated recurrent units (GRU, Cho et al. 2014), for windows of series."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from gan_cli.models.layers import Linear, dense, dropout
from gan_cli.models.temporal import steps
from gan_cli.types import Decay, Feature, PositiveInt

_INIT = nnx.initializers.lecun_normal()
_RECURRENT = nnx.initializers.orthogonal()


class Generator(nnx.Module):
    """Recurrent generator: a dense layer, then ``depth`` layers of gated recurrent units.

    Maps latents ``[batch, latent_dim]`` to windows ``[batch, length, columns]``. The dense layer makes the inputs
    of each time step. For windows of unpredictable values, such as returns, ``latent_dim`` should be at least
    length * columns.

    Args:
        width: number of units in each layer.
        depth: number of recurrent layers.
        dropout: dropout rate of the inputs of each recurrent layer but the first during training. 0 disables
            dropout.
    """

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        dropout: Decay = 0.0,
    ):
        length, columns = steps("recurrent", feature)
        self.shape = length, width
        self.first = dense(latent_dim, length * width, rngs, init=_INIT)
        self.layers = nnx.List(Gated(width, width, rngs) for _ in range(depth))
        self.out = dense(width, columns, rngs, init=_INIT)
        self.dropout, self.feature = dropout, feature
        self.couples_batch = False

    @property
    def entry(self) -> Linear:
        return self.first

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.layers[0](self.first(z, train=train).reshape(z.shape[0], *self.shape), train=train)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = self.early(z, train=train, key=key)
        x = _rest(self.layers, x, self.dropout, train=train, key=key)
        return self.feature.head(self.out(x, train=train))


class _Body(nnx.Module):
    """Recurrent layers and an output layer, which reads the last state and the mean of all states."""

    def __init__(self, feature: Feature, outputs: int, rngs: nnx.Rngs, *, width: int, depth: int, dropout: float):
        _, columns = steps("recurrent", feature)
        self.layers = nnx.List(Gated(width if i else columns, width, rngs) for i in range(depth))
        self.out = dense(2 * width, outputs, rngs, init=_INIT)
        self.dropout = dropout
        self.couples_batch = False

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = _rest(self.layers, self.layers[0](x, train=train), self.dropout, train=train, key=key)
        return jnp.concatenate([x[:, -1], x.mean(1)], axis=-1)

    def outputs(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.out(self.features(x, train=train, key=key), train=train)


class Discriminator(_Body):
    """Recurrent discriminator with ``depth`` layers of gated recurrent units.

    Maps windows ``[batch, length, columns]`` to logits ``[batch]``.

    Args:
        width: number of units in each layer.
        depth: number of recurrent layers.
        dropout: dropout rate of the inputs of each recurrent layer but the first during training. 0 disables
            dropout.
    """

    def __init__(
        self,
        feature: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        dropout: Decay = 0.0,
    ):
        super().__init__(feature, 1, rngs, width=width, depth=depth, dropout=dropout)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.outputs(x, train=train, key=key)[:, 0]


class Encoder(_Body):
    """Recurrent encoder with ``depth`` layers of gated recurrent units.

    Maps windows ``[batch, length, columns]`` to ``[batch, outputs]``.

    Args:
        width: number of units in each layer.
        depth: number of recurrent layers.
        dropout: dropout rate of the inputs of each recurrent layer but the first during training. 0 disables
            dropout.
    """

    def __init__(
        self,
        feature: Feature,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        dropout: Decay = 0.0,
    ):
        super().__init__(feature, outputs, rngs, width=width, depth=depth, dropout=dropout)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.outputs(x, train=train, key=key)


class Gated(nnx.Module):
    """One layer of gated recurrent units: inputs ``[batch, length, in]`` to states ``[batch, length, width]``.

    The reset gate multiplies the product of the state, as in cuDNN, so that one matrix product serves all gates.
    The first state ``start`` ``[batch, width]`` is zero by default.
    """

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs):
        self.inputs = dense(inputs, 3 * width, rngs, init=_INIT)
        blocks = [_RECURRENT(rngs.params(), (width, width), jnp.float32) for _ in range(3)]
        self.kernel = nnx.Param(jnp.concatenate(blocks, axis=1))
        self.width = width

    def __call__(self, x: jax.Array, *, train: bool, start: jax.Array | None = None) -> jax.Array:
        kernel, width = self.kernel[...].astype(x.dtype), self.width

        def step(state: jax.Array, of_input: jax.Array) -> tuple[jax.Array, jax.Array]:
            of_state = state @ kernel
            gates = jax.nn.sigmoid(of_input[:, : 2 * width] + of_state[:, : 2 * width])
            reset, kept = gates[:, :width], gates[:, width:]
            candidate = jnp.tanh(of_input[:, 2 * width :] + reset * of_state[:, 2 * width :])
            state = kept * state + (1 - kept) * candidate
            return state, state

        of_inputs = self.inputs(x, train=train).swapaxes(0, 1)
        first = jnp.zeros((x.shape[0], width), x.dtype) if start is None else start
        _, states = lax.scan(step, first, of_inputs)
        return states.swapaxes(0, 1)


def _rest(layers: nnx.List[Gated], x: jax.Array, rate: float, *, train: bool, key: jax.Array) -> jax.Array:
    """The states of the last layer, where ``x`` are those of the first."""
    for i, layer in enumerate(layers[1:]):
        x = layer(dropout(x, rate, train=train, key=jax.random.fold_in(key, i)), train=train)
    return x
