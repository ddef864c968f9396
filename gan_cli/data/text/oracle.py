"""The oracle of SeqGAN's synthetic task (Yu et al. 2017, section 5.1): an LSTM with random weights.

The oracle draws the real sentences of the task, and gives the exact likelihood of any sentence. It has one layer,
starts with token 0 and the state h = c = 0, and computes W x + U h + b in each gate: i, f, o = sigmoid, candidate =
tanh, c' = f c + i candidate, h' = o tanh(c').
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_cli.errors import UserError
from gan_cli.storage.files import read_arrays

START = 0  # the token before the first one, which is also a word of the vocabulary
WORDS, WIDTH = 5000, 32  # of the published oracle: words, and values of an embedding and of a state
_GATES = ("i", "f", "og", "c")  # the names of the gates in a file: input, forget, output, candidate
_ROWS = 256  # sentences that are drawn or read at a time, so that the probabilities of a step fit into the cache

_State = tuple[np.ndarray, np.ndarray]  # the cell and the output of the layer, ``[n, states]``


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

    def sample(self, rng: np.random.Generator, n: int, length: int = 20) -> np.ndarray:
        """``n`` sentences of ``length`` words, int32 ``[n, length]``."""
        found = np.empty((n, length), np.int32)
        for part in _parts(n):
            rows = found[part]
            state, before = self._start(len(rows)), np.full(len(rows), START)
            for place in range(length):
                state, logits = self._step(state, before)
                below = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1, dtype=np.float64)
                uniform = rng.random((len(rows), 1)) * below[:, -1:]
                rows[:, place] = before = (below <= uniform).sum(1)
        return found

    def log_likelihood(self, tokens: np.ndarray) -> np.ndarray:
        """The logarithm of the probability of each word after the words before it, in nats, ``[n, length]``."""
        found = np.empty(tokens.shape, np.float32)
        for part in _parts(len(tokens)):
            rows = tokens[part]
            state, before = self._start(len(rows)), np.full(len(rows), START)
            for place in range(tokens.shape[1]):
                state, logits = self._step(state, before)
                before = rows[:, place]
                highest = logits.max(1)
                total = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
                found[part, place] = logits[np.arange(len(rows)), before] - total
        return found

    def _start(self, rows: int) -> _State:
        zeros = np.zeros((rows, len(self.out)), np.float32)
        return zeros, zeros

    def _step(self, state: _State, token: np.ndarray) -> tuple[_State, np.ndarray]:
        """A pair: the state after ``token``, and the logits ``[n, words]`` of the next word."""
        cell, shown = state
        gates = self.embedding[token] @ self.inputs + shown @ self.recurrent + self.bias
        width = shown.shape[1]
        enter, keep, show = np.split(1 / (1 + np.exp(-gates[:, : 3 * width])), 3, axis=1)
        cell = keep * cell + enter * np.tanh(gates[:, 3 * width :])
        shown = show * np.tanh(cell)
        return (cell, shown), shown @ self.out + self.out_bias

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
        found.log_likelihood(np.zeros((1, 2), np.int32))
        fits = found.out.shape[1] == len(found.embedding) and all(np.isfinite(one).all() for one in found.weights)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"dataset.path={path}: the arrays are not those of an oracle, because their shapes do not fit or they "
            "have values that are not finite. Choose another file, or dataset.path=null for random weights."
        )
    return found


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))
