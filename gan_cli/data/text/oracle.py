"""The oracle of SeqGAN's synthetic task (Yu et al. 2017, section 5.1): an LSTM with random weights.

The oracle draws the real sentences of the task, and gives the exact likelihood of any sentence. It has one layer,
starts with token 0 and the state h = c = 0, and computes W x + U h + b in each gate: i, f, o = sigmoid, candidate =
tanh, c' = f c + i candidate, h' = o tanh(c').
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_cli.errors import UserError
from gan_cli.storage.files import read_arrays

START = 0  # the token before the first one, which is also a word of the vocabulary
WORDS, WIDTH = 5000, 32  # of the published oracle: words, and values of an embedding and of a state
_GATES = ("i", "f", "og", "c")  # the names of the gates in a file: input, forget, output, candidate
_ROWS = 512  # sentences that are drawn or read at a time: the probabilities of one step take 10 MB


@dataclass(frozen=True, eq=False)
class Oracle:
    """A recurrent network that draws sentences and gives their likelihood.

    Attributes:
        embedding: vectors of the words, ``[words, width]``.
        inputs: kernels of the gates for the embedding, ``[width, 4 states]``: input, forget, output, candidate.
        recurrent: kernels of the gates for the state, ``[states, 4 states]``.
        bias: biases of the gates, ``[4 states]``.
        out: kernel of the output layer, ``[states, words]``.
        out_bias: biases of the output layer, ``[words]``.
    """

    embedding: np.ndarray
    inputs: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def sample(self, key: jax.Array, n: int, length: int = 20) -> np.ndarray:
        """``n`` sentences of ``length`` words, int32 ``[n, length]``."""
        parts = [_sample(self.weights, jax.random.fold_in(key, i), length) for i in range(-(-n // _ROWS))]
        return np.concatenate([np.asarray(part) for part in parts])[:n]

    def log_likelihood(self, tokens: np.ndarray) -> np.ndarray:
        """The logarithm of the probability of each word after the words before it, in nats, ``[n, length]``."""
        rows = np.arange(-(-len(tokens) // _ROWS) * _ROWS) % len(tokens)
        parts = [_log_likelihood(self.weights, tokens[part]) for part in rows.reshape(-1, _ROWS)]
        return np.concatenate([np.asarray(part) for part in parts])[: len(tokens)]

    @property
    def weights(self) -> tuple[np.ndarray, ...]:
        """All weights, in the order of the attributes."""
        return self.embedding, self.inputs, self.recurrent, self.bias, self.out, self.out_bias


def seeded(seed: int) -> Oracle:
    """An oracle of the published shape whose weights are drawn from N(0, 1)."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    gates = 4 * WIDTH
    return Oracle(
        normal(WORDS, WIDTH), normal(WIDTH, gates), normal(WIDTH, gates), normal(gates), normal(WIDTH, WORDS),
        normal(WORDS),
    )  # fmt: skip


def from_file(path: Path) -> Oracle:
    """The oracle in an ``.npz`` file with the arrays of SeqGAN's target network.

    The arrays are ``embeddings``, ``W``, ``U`` and ``b`` followed by ``i``, ``f``, ``og`` and ``c``, ``Wo`` and
    ``bo``.

    Raises:
        UserError: the file cannot be read, or its arrays do not fit together.
    """
    needed = ["embeddings", "Wo", "bo", *(f"{array}{gate}" for array in "WUb" for gate in _GATES)]
    try:
        arrays = read_arrays(path)
    except FileNotFoundError as error:
        raise UserError(f"dataset.path={path}: there is no such file. Check the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"dataset.path={path}: the file cannot be read ({error}). Choose an .npz file of arrays, or "
            "dataset.path=null for random weights."
        ) from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(
            f"dataset.path={path}: has no array {missing[0]}. The file of an oracle has the arrays "
            f"{', '.join(needed)}."
        )

    def joined(array: str) -> np.ndarray:
        return np.concatenate([arrays[f"{array}{gate}"] for gate in _GATES], axis=-1).astype(np.float32)

    try:
        found = Oracle(
            arrays["embeddings"].astype(np.float32), joined("W"), joined("U"), joined("b"),
            arrays["Wo"].astype(np.float32), arrays["bo"].astype(np.float32),
        )  # fmt: skip
        jax.eval_shape(_log_likelihood, found.weights, jax.ShapeDtypeStruct((_ROWS, 2), np.int32))
        fits = found.out.shape[1] == len(found.embedding) and all(np.isfinite(one).all() for one in found.weights)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"dataset.path={path}: the arrays are not those of an oracle, because their shapes do not fit or they "
            "have values that are not finite. Choose another file, or dataset.path=null for random weights."
        )
    return found


_Weights = tuple[np.ndarray, ...]
_State = tuple[jax.Array, jax.Array]


def _step(weights: _Weights, state: _State, token: jax.Array) -> tuple[_State, jax.Array]:
    """A pair: the state after ``token``, and the log-probabilities ``[n, words]`` of the next word."""
    embedding, inputs, recurrent, bias, out, out_bias = map(jnp.asarray, weights)
    cell, hidden = state
    gates = embedding[token] @ inputs + hidden @ recurrent + bias
    opened, kept, shown = jnp.split(jax.nn.sigmoid(gates[:, : 3 * hidden.shape[1]]), 3, axis=1)
    cell = kept * cell + opened * jnp.tanh(gates[:, 3 * hidden.shape[1] :])
    hidden = shown * jnp.tanh(cell)
    return (cell, hidden), jax.nn.log_softmax(hidden @ out + out_bias)


def _start(weights: _Weights, rows: int) -> _State:
    zeros = jnp.zeros((rows, weights[4].shape[0]))
    return zeros, zeros


@jax.jit
def _log_likelihood(weights: _Weights, tokens: jax.Array) -> jax.Array:
    before = jnp.concatenate([jnp.full_like(tokens[:, :1], START), tokens[:, :-1]], axis=1)

    def step(state: _State, pair: tuple[jax.Array, jax.Array]) -> tuple[_State, jax.Array]:
        state, log_p = _step(weights, state, pair[0])
        return state, jnp.take_along_axis(log_p, pair[1][:, None], axis=1)[:, 0]

    _, found = lax.scan(step, _start(weights, tokens.shape[0]), (before.T, tokens.T))
    return found.T


def _sample_impl(weights: _Weights, key: jax.Array, length: int) -> jax.Array:
    def step(carry: tuple[_State, jax.Array], uniform: jax.Array) -> tuple[tuple[_State, jax.Array], jax.Array]:
        state, log_p = _step(weights, *carry)
        # The inverse of the distribution function needs one random number for each word, not one per vocabulary.
        below = jnp.cumsum(jnp.exp(log_p), axis=1)
        token = jnp.sum(below < uniform[:, None] * below[:, -1:], axis=1).astype(jnp.int32)
        return (state, token), token

    first = jnp.full(_ROWS, START, jnp.int32)
    uniforms = jax.random.uniform(key, (length, _ROWS))
    _, tokens = lax.scan(step, (_start(weights, _ROWS), first), uniforms)
    return tokens.T


_sample = jax.jit(_sample_impl, static_argnums=2)
