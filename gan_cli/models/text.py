"""Networks of texts: a recurrent generator, and recurrent and convolutional discriminators.

Recurrent layers are long short-term memories (LSTM, Hochreiter and Schmidhuber 1997). A text is an array of tokens
``[batch, length]``, or of weights ``[batch, length, words]`` of the words of the vocabulary: one-hot vectors, or
the relaxed vectors of a Gumbel-softmax (Jang et al. 2017). Products with the vocabulary are outside the loops over
time wherever the tokens are known, as one matrix product for all tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from gan_cli.models.layers import Linear, dense, dropout
from gan_cli.types import Batch, Decay, PositiveInt

if TYPE_CHECKING:
    from gan_cli.data.text.feature import Tokens

_INIT = nnx.initializers.lecun_normal()
_EMBEDDING = nnx.initializers.normal(0.1)
_DISTINCT = nnx.initializers.normal(1.0)
_RECURRENT = nnx.initializers.orthogonal()
_COLDEST = 1e-6  # temperature below which the most probable token is certain in float32

State = tuple[jax.Array, jax.Array]  # the cell and the output of a recurrent layer, ``[batch, width]``


class _LSTM(nnx.Module):
    """A recurrent layer. The bias of the forget gate starts at 1 (Jozefowicz et al. 2015)."""

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs):
        self.inputs = dense(inputs, 4 * width, rngs, init=_INIT)
        assert self.inputs.bias is not None
        self.inputs.bias[...] = self.inputs.bias[...].at[width : 2 * width].set(1.0)
        blocks = [_RECURRENT(rngs.params(), (width, width), jnp.float32) for _ in range(4)]
        self.kernel = nnx.Param(jnp.concatenate(blocks, axis=1))
        self.width = width

    def start(self, rows: int) -> State:
        return jnp.zeros((rows, self.width)), jnp.zeros((rows, self.width))

    def step(self, state: State, of_input: jax.Array) -> State:
        """The state after one time step, whose product with the input is known."""
        return _step(state, of_input, self.kernel[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs ``[batch, length, width]`` for inputs ``[batch, length, inputs]``."""
        return outputs(self.inputs(x, train=True).swapaxes(0, 1), self.kernel[...]).swapaxes(0, 1)


def _step(state: State, of_input: jax.Array, kernel: jax.Array) -> State:
    cell, shown = state
    width = kernel.shape[0]
    gates = of_input + shown @ kernel
    enter, keep, show = jnp.split(jax.nn.sigmoid(gates[:, : 3 * width]), 3, axis=1)
    cell = keep * cell + enter * jnp.tanh(gates[:, 3 * width :])
    return cell, show * jnp.tanh(cell)


def _scanned(of_inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    def step(state: State, of_input: jax.Array) -> tuple[State, jax.Array]:
        state = _step(state, of_input, kernel)
        return state, state[1]

    start = jnp.zeros((of_inputs.shape[1], kernel.shape[0]), of_inputs.dtype)
    return lax.scan(step, (start, start), of_inputs)[1]


@jax.custom_vjp
def outputs(of_inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """The outputs ``[length, batch, width]`` of an LSTM layer (Hochreiter and Schmidhuber 1997).

    The gradient of the kernel is one product over all time steps. The gradient that JAX derives adds up a small
    product for each time step, which made the gradient of a layer of 256 units 1.8 times as slow on 2 CPU cores.

    Args:
        of_inputs: products of the inputs with their kernel, plus the bias, ``[length, batch, 4 * width]``.
        kernel: the kernel of the outputs of the previous time step, ``[width, 4 * width]``.
    """
    return _scanned(of_inputs, kernel)


def _outputs_forward(of_inputs: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    shown, backward = jax.vjp(lambda of_inputs: _scanned(of_inputs, kernel), of_inputs)
    return shown, (backward, shown)


def _outputs_backward(kept: tuple[Any, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    backward, shown = kept
    (of_gates,) = backward(gradient)  # the gates are the sum of ``of_inputs`` and the product with the kernel
    before = jnp.concatenate([jnp.zeros_like(shown[:1]), shown[:-1]])
    return of_gates, jnp.einsum("tbw,tbg->wg", before, of_gates)


outputs.defvjp(_outputs_forward, _outputs_backward)


class Generator(nnx.Module):
    """Recurrent generator of texts: embeddings, ``depth`` LSTM layers, and a distribution of the next token.

    Args:
        width: number of units in each recurrent layer.
        depth: number of recurrent layers.
        embedding: number of values in the vector of a token.
        dropout: dropout rate of the inputs of each recurrent layer and of the output layer in training with known
            texts (Zaremba et al. 2014). 0 disables dropout.
    """

    def __init__(
        self,
        feature: Tokens,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 32,
        depth: PositiveInt = 1,
        embedding: PositiveInt = 32,
        dropout: Decay = 0.0,
    ):
        words = len(feature.vocabulary)
        # The last row is the vector of the beginning of a text.
        self.embedding = nnx.Param(_EMBEDDING(rngs.params(), (words + 1, embedding), jnp.float32))
        self.layers = nnx.List(_LSTM(width if i else embedding, width, rngs) for i in range(depth))
        self.out = dense(width, words, rngs, init=_INIT)
        self.feature, self.dropout = feature, dropout
        self.couples_batch = False

    def __call__(self, tokens: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """Logits ``[batch, length, words]`` of each token after the tokens before it."""
        start = jnp.full_like(tokens[:, :1], self.feature.start)
        x = self.embedding[...][jnp.concatenate([start, tokens[:, :-1]], axis=1)]
        for i, layer in enumerate(self.layers):
            x = layer(dropout(x, self.dropout, train=train, key=jax.random.fold_in(key, i)))
        x = dropout(x, self.dropout, train=train, key=jax.random.fold_in(key, len(self.layers)))
        return self.out(x, train=train)

    def sample(self, inputs: Batch, *, train: bool, key: jax.Array) -> jax.Array:
        """Texts ``[batch, length]``, drawn token by token.

        Args:
            inputs: ``noise`` ``[batch, length]``, a standard normal value for each token; ``temperature``
                ``[batch]``, by which the logits are divided, where 0 is the most probable token; and ``prompt``
                ``[batch, length]``, tokens that replace the drawn ones wherever they are not negative.
            train: without effect, because sampling has no dropout.
            key: without effect.
        """
        temperature = jnp.maximum(inputs["temperature"], _COLDEST)[:, None]

        def step(
            carry: tuple[list[State], jax.Array], row: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[list[State], jax.Array], jax.Array]:
            (states, before), (noise, prompt) = carry, row
            states, logits = self._next(states, self.embedding[...][before])
            drawn = draw(logits / temperature, jax.scipy.special.ndtr(noise))
            token = self._ended(before, jnp.where(prompt < 0, drawn, prompt))
            return (states, token), token

        noise = inputs["noise"]
        first = jnp.full(noise.shape[0], self.feature.start, jnp.int32)
        rows = noise.T, inputs["prompt"].T
        _, tokens = lax.scan(step, (self._start(noise.shape[0]), first), rows)
        return tokens.T

    def relaxed(
        self, noise: jax.Array, temperature: jax.Array, *, straight_through: bool, train: bool, key: jax.Array
    ) -> jax.Array:
        """Relaxed texts ``[batch, length, words]``: rows of weights, drawn by the Gumbel-softmax.

        Each row is softmax((logits + g) / temperature) with Gumbel noise g, and the next token's input is the mean
        of the embeddings with these weights (Kusner and Hernandez-Lobato 2016). The row of the largest weight of
        ``end`` ends a text.

        Args:
            noise: ``[batch, length]``, whose shape is the shape of the texts.
            temperature: temperature of the relaxation.
            straight_through: whether the rows are one-hot vectors, with the derivative of the relaxed rows.
            train: without effect, because sampling has no dropout.
            key: random key of the Gumbel noise.
        """
        rows, length = noise.shape
        table, end = self.embedding[...], self.feature.end
        words = table.shape[0] - 1

        def step(
            carry: tuple[list[State], jax.Array, jax.Array], key: jax.Array
        ) -> tuple[tuple[list[State], jax.Array, jax.Array], jax.Array]:
            states, x, over = carry
            states, logits = self._next(states, x)
            noisy = (logits + jax.random.gumbel(key, logits.shape)) / temperature
            weights, hard = jax.nn.softmax(noisy), jax.nn.one_hot(noisy.argmax(1), words)
            if straight_through:
                weights += lax.stop_gradient(hard - weights)
            if end is not None:
                weights = jnp.where(over[:, None], jax.nn.one_hot(end, words), weights)
                over |= weights.argmax(1) == end
            return (states, weights @ table[:-1], over), weights

        start = jnp.broadcast_to(table[-1], (rows, table.shape[1]))
        carry = self._start(rows), start, jnp.zeros(rows, bool)
        _, weights = lax.scan(step, carry, jax.random.split(key, length))
        return weights.swapaxes(0, 1)

    def _start(self, rows: int) -> list[State]:
        return [layer.start(rows) for layer in self.layers]

    def _next(self, states: list[State], x: jax.Array) -> tuple[list[State], jax.Array]:
        """A pair: the states after the input ``x`` ``[batch, embedding]``, and the logits of the next token."""
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            state = layer.step(state, layer.inputs(x, train=False))
            after.append(state)
            x = state[1]
        return after, self.out(x, train=False)

    def _ended(self, before: jax.Array, token: jax.Array) -> jax.Array:
        end = self.feature.end
        return token if end is None else jnp.where(before == end, end, token)


class _Reader(nnx.Module):
    """The embedding of texts that are tokens ``[batch, length]`` or weights ``[batch, length, words]``."""

    def __init__(self, feature: Tokens, embedding: int, rngs: nnx.Rngs):
        # Vectors of unit variance tell words apart from the start. Smaller ones delay the discriminator's learning.
        self.table = nnx.Param(_DISTINCT(rngs.params(), (len(feature.vocabulary), embedding), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        table = self.table[...]
        return table[x] if x.ndim == 2 else x @ table


class Discriminator(nnx.Module):
    """Recurrent discriminator with a logit for each token, which depends on this token and the tokens before it.

    d'Autume et al. 2019, section 3.2.

    Args:
        width: number of units in each recurrent layer.
        depth: number of recurrent layers.
        embedding: number of values in the vector of a token.
        dropout: dropout rate of the inputs of each recurrent layer and of the output layer during training. 0
            disables dropout.
    """

    def __init__(
        self,
        feature: Tokens,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 32,
        depth: PositiveInt = 1,
        embedding: PositiveInt = 32,
        dropout: Decay = 0.0,
    ):
        self.reader = _Reader(feature, embedding, rngs)
        self.layers = nnx.List(_LSTM(width if i else embedding, width, rngs) for i in range(depth))
        self.out = dense(width, 1, rngs, init=_INIT)
        self.dropout = dropout
        self.couples_batch = False

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """Logits ``[batch, length]``."""
        x = self.reader(x)
        for i, layer in enumerate(self.layers):
            x = layer(dropout(x, self.dropout, train=train, key=jax.random.fold_in(key, i)))
        x = dropout(x, self.dropout, train=train, key=jax.random.fold_in(key, len(self.layers)))
        return self.out(x, train=train)[..., 0]


class ConvolutionalDiscriminator(nnx.Module):
    """Convolutional discriminator with one logit for each text (Kim 2014; Yu et al. 2017).

    Filters of several widths read all windows of tokens, and the largest value of each filter enters the logit.

    Args:
        width: number of filters of each width.
        windows: widths of the filters in tokens, at most the length of a text.
        embedding: number of values in the vector of a token.
        dropout: dropout rate of the input of the output layer during training. 0 disables dropout.
    """

    def __init__(
        self,
        feature: Tokens,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        windows: tuple[PositiveInt, ...] = (2, 3, 4, 5),
        embedding: PositiveInt = 32,
        dropout: Decay = 0.25,
    ):
        self.reader = _Reader(feature, embedding, rngs)
        self.windows = tuple(min(window, feature.length) for window in windows)
        self.filters = nnx.List(dense(window * embedding, width, rngs, init=_INIT) for window in self.windows)
        self.out = dense(width * len(self.windows), 1, rngs, init=_INIT)
        self.dropout = dropout
        self.couples_batch = False

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """Logits ``[batch]``."""
        x = self.reader(x)
        found = [_largest(layer, x, window) for layer, window in zip(self.filters, self.windows, strict=True)]
        x = dropout(jnp.concatenate(found, axis=1), self.dropout, train=train, key=key)
        return self.out(x, train=train)[:, 0]


def _largest(layer: Linear, x: jax.Array, window: int) -> jax.Array:
    """The largest output ``[batch, filters]`` of filters over all windows of ``x`` ``[batch, length, embedding]``.

    The convolution is one matrix product with all windows, which are small.
    """
    last = x.shape[1] - window + 1
    windows = jnp.concatenate([x[:, i : i + last] for i in range(window)], axis=2)
    return jax.nn.relu(layer(windows, train=True)).max(1)


def draw(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """One token for each row of logits ``[batch, words]``, int32 ``[batch]``, by the inverse distribution function.

    A single number in [0, 1] for each row, ``uniform``, determines the token. The search has two stages, first
    among blocks of words and then within one block, because cumulative sums are slow on a CPU.
    """
    rows, words = logits.shape
    side = math.isqrt(words - 1) + 1
    weights = jnp.exp(logits - logits.max(1, keepdims=True))
    blocks = jnp.pad(weights, ((0, 0), (0, side**2 - words))).reshape(rows, side, side)
    sums = jnp.cumsum(blocks.sum(2), axis=1)
    sought = jnp.minimum(uniform, 1 - 2**-24)[:, None] * sums[:, -1:]
    block = jnp.minimum(jnp.sum(sums <= sought, axis=1), side - 1)
    before = jnp.take_along_axis(jnp.pad(sums, ((0, 0), (1, 0))), block[:, None], axis=1)
    inside = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=1)
    # Rounding may move the number beyond the last word of the block.
    place = jnp.sum(inside <= jnp.minimum(sought - before, inside[:, -1:] * (1 - 2**-23)), axis=1)
    return jnp.minimum(block * side + place, words - 1).astype(jnp.int32)
