"""Leading eigenvalues of a game's Jacobian, which show whether the players converge, rotate or diverge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gan_cli import estimators
from gan_cli.data.dataset import Dataset
from gan_cli.engine import randomness
from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import field, jacobian_product
from gan_cli.types import Game

_ROTATES = 3.0


def of_game(
    game: Game, data: Dataset | None, batch_size: int, seed: int, state: TrainState, count: int
) -> dict[str, Any]:
    """Leading eigenvalues of the game's Jacobian at a training state, and the behaviour that they imply.

    The Jacobian is computed on the first batch of the run.

    Args:
        data: the data set of the run, or None for a game without data.
        count: number of eigenvalues.

    Returns:
        A dictionary with two entries: ``eigenvalues`` is a list of pairs [real part, imaginary part], and
        ``verdict`` is the local behaviour of the players: ``flat``, ``diverging``, ``rotating`` or ``converging``.
    """
    batch = randomness.batch_of(data, seed, batch_size) if data else {}
    key = randomness.step_key(seed, state.step)
    evaluate = field(game.with_eager_penalties(), estimators.mean(), state, batch, key)
    flat, unflatten = ravel_pytree(state.params)

    @jax.jit
    def product(v: jax.Array) -> jax.Array:
        products: jax.Array = jacobian_product(lambda p: ravel_pytree(evaluate(unflatten(p))[0])[0], flat)(v)
        return products

    found = leading(lambda v: np.asarray(product(jnp.asarray(v, flat.dtype))), flat.size, count)
    return {"eigenvalues": [[float(e.real), float(e.imag)] for e in found], "verdict": verdict(found)}


def bytes_needed(size: int, count: int) -> int:
    """Bytes of memory that ``leading`` needs for the basis of the Krylov space."""
    return 8 * size * (_dimensions(size, count) + 1)


def _dimensions(size: int, count: int) -> int:
    return min(size, 2 * count + 10)


def leading(product: Callable[[np.ndarray], np.ndarray], size: int, count: int, seed: int = 0) -> np.ndarray:
    """The eigenvalues of largest modulus of a matrix J, by Arnoldi iteration.

    The iteration is described in Arnoldi 1951 and in Saad 2011, section 6.2.

    Args:
        product: the function v -> J v for vectors ``[size]``.
        size: number of rows of J.
        count: number of eigenvalues. The Krylov space has 2 * count + 10 dimensions, but at most ``size``.
        seed: seed of the random start vector.

    Returns:
        Complex eigenvalues ``[count]`` in descending order of modulus. The array is shorter if the Krylov space has
        fewer than ``count`` dimensions, e.g. because J has fewer than ``count`` rows.
    """
    steps = _dimensions(size, count)
    basis = np.zeros((steps + 1, size))
    hessenberg = np.zeros((steps + 1, steps))
    start = np.random.default_rng(seed).standard_normal(size)
    basis[0] = start / np.linalg.norm(start)
    for j in range(steps):
        vector = np.asarray(product(basis[j]), np.float64)
        scale = np.linalg.norm(vector)
        for _ in range(2):  # a second orthogonalisation removes the rounding errors of the first
            overlaps = basis[: j + 1] @ vector
            hessenberg[: j + 1, j] += overlaps
            vector = vector - overlaps @ basis[: j + 1]
        hessenberg[j + 1, j] = np.linalg.norm(vector)
        if hessenberg[j + 1, j] <= 1e-7 * scale or j + 1 == steps:  # the Krylov space is invariant or complete
            steps = j + 1
            break
        basis[j + 1] = vector / hessenberg[j + 1, j]
    found = np.linalg.eigvals(hessenberg[:steps, :steps])
    return found[np.argsort(-np.abs(found), kind="stable")][:count]


def verdict(eigenvalues: np.ndarray) -> str:
    """The local behaviour of the flow dx/dt = -F(x), from the leading eigenvalues of the Jacobian of F.

    F stacks the gradient of each player's loss with respect to the parameters of this player. Real and imaginary
    parts below 1e-4 of the largest modulus count as zero.

    Returns:
        The first of the following words whose condition holds. ``flat``: all eigenvalues are zero. ``diverging``:
        an eigenvalue has a negative real part. ``rotating``: the absolute value of the imaginary part of an
        eigenvalue is more than 3 times the real part, so the players rotate much faster than they converge.
        ``converging``: all other cases.
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
