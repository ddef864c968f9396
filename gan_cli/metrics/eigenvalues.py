"""The leading eigenvalues of a game's Jacobian, which say whether its players converge, circle or part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gan_cli.data.dataset import Dataset
from gan_cli.engine import randomness
from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import field, jacobian_product
from gan_cli.types import Batch, Game

_ROTATES = 3.0


def of_game(
    game: Game, data: Dataset | None, batch_size: int, seed: int, state: TrainState, count: int
) -> dict[str, Any]:
    """The leading eigenvalues where a run's players stand, on the run's first batch, and what they say.

    Returns:
        ``eigenvalues``, each a real and an imaginary part, and ``verdict``.
    """
    batch = Batch(randomness.first_examples(data, seed, batch_size, batch_size)) if data else None
    evaluate = field(game.with_eager_penalties(), state, batch, randomness.step_key(seed, state.step))  # type: ignore[arg-type]
    flat, unflatten = ravel_pytree(state.params)

    @jax.jit
    def product(v: jax.Array) -> jax.Array:
        return jacobian_product(lambda p: ravel_pytree(evaluate(unflatten(p))[0])[0], flat)(v)

    found = leading(lambda v: np.asarray(product(jnp.asarray(v, flat.dtype))), flat.size, count)
    return {"eigenvalues": [[float(e.real), float(e.imag)] for e in found], "verdict": verdict(found)}


def bytes_needed(size: int, count: int) -> int:
    """Bytes that ``leading`` takes."""
    return 8 * size * (_dimensions(size, count) + 1)


def _dimensions(size: int, count: int) -> int:
    return min(size, 2 * count + 10)


def leading(product: Callable[[np.ndarray], np.ndarray], size: int, count: int, seed: int = 0) -> np.ndarray:
    """The ``count`` eigenvalues of largest modulus, by Arnoldi iteration (Arnoldi 1951; Saad 2011, section 6.2).

    Args:
        product: v ``[size]`` -> J v.
        size: of the matrix.
        count: how many; the Krylov space has twice as many dimensions, and ten more.

    Returns:
        Complex, by falling modulus; fewer where the matrix has no more.
    """
    steps = _dimensions(size, count)
    basis = np.zeros((steps + 1, size))
    hessenberg = np.zeros((steps + 1, steps))
    start = np.random.default_rng(seed).standard_normal(size)
    basis[0] = start / np.linalg.norm(start)
    for j in range(steps):
        vector = np.asarray(product(basis[j]), np.float64)
        scale = np.linalg.norm(vector)
        for _ in range(2):  # twice is enough against rounding
            overlaps = basis[: j + 1] @ vector
            hessenberg[: j + 1, j] += overlaps
            vector = vector - overlaps @ basis[: j + 1]
        hessenberg[j + 1, j] = np.linalg.norm(vector)
        if hessenberg[j + 1, j] <= 1e-7 * scale or j + 1 == steps:  # the space is invariant, or full
            steps = j + 1
            break
        basis[j + 1] = vector / hessenberg[j + 1, j]
    found = np.linalg.eigvals(hessenberg[:steps, :steps])
    return found[np.argsort(-np.abs(found), kind="stable")][:count]


def verdict(eigenvalues: np.ndarray) -> str:
    """What the flow x' = -F(x) does along the leading directions, of which J has these eigenvalues.

    diverging: one has a negative real part. rotating: the largest imaginary part is several times the smallest real
    part of the pairs, so that players circle much more than they approach. flat: there is no slope anywhere.
    converging: none of these.
    """
    if not eigenvalues.any():
        return "flat"
    tolerance = 1e-4 * np.abs(eigenvalues).max(initial=0.0)
    if (eigenvalues.real < -tolerance).any():
        return "diverging"
    turning = eigenvalues[np.abs(eigenvalues.imag) > tolerance]
    if len(turning) and (np.abs(turning.imag) > _ROTATES * np.maximum(turning.real, 0)).any():
        return "rotating"
    return "converging"
