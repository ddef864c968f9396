"""Samples by number: what a generator makes of the i-th latents of a seed, however many are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import BATCH
from gan_cli.data.scaling import denormalise
from gan_cli.engine.state import TrainState
from gan_cli.types import ByPlayer, Game


class Sampler:
    """Draws from the generator of a game, so many examples at a time that the device is busy, compiled once.

    Args:
        game: one that draws samples.
    """

    batch = BATCH

    def __init__(self, game: Game):
        assert game.spec is not None
        self.game, self.spec = game, game.spec

        def decode(state: TrainState, latents: jax.Array, labels: jax.Array | None) -> jax.Array:
            return game.decode(*averaged(state), latents, labels)

        self._decode = jax.jit(decode)
        stored = jax.jit(lambda *given: denormalise(decode(*given)))
        self._stored = stored if self.spec.is_image else self._decode

    def latents(self, seed: int, first: int, n: int, truncation: float | None = None) -> np.ndarray:
        """The latents ``[n, latent_dim]`` of numbers ``first`` to ``first + n`` of a seed: N(0, I).

        With ``truncation`` t, values beyond t from zero are drawn again (Brock et al. 2019, section 3.1).
        """
        return np.asarray(_latents(np.uint32(seed), np.uint32(first), n, self.game.latent_dim, truncation))

    def labels(self, first: int, n: int) -> np.ndarray | None:
        """The classes of these numbers, each in turn; None of a game that knows no classes."""
        classes = self.game.classes
        return None if classes is None else np.arange(first, first + n, dtype=np.int32) % classes

    def __call__(self, state: TrainState, latents: np.ndarray, labels: np.ndarray | None = None) -> jax.Array:
        """``[n, *spec.shape]`` examples as the networks see them (images in [-1, 1]). Waits for nothing."""
        return jnp.concatenate(list(self._parts(self._decode, state, latents, labels)))

    def stored(
        self, state: TrainState, latents: np.ndarray, labels: np.ndarray | None = None
    ) -> Iterator[jax.Array]:
        """The same as they lie in files: images as uint8 in 0..255, points as they come; batches on the device."""
        return self._parts(self._stored, state, latents, labels)

    def numbered(self, state: TrainState, seed: int, n: int) -> Iterator[jax.Array]:
        """The first ``n`` examples of a seed, as ``stored`` gives them."""
        return self.stored(state, self.latents(seed, 0, n), self.labels(0, n))

    def _parts(
        self, decode: Any, state: TrainState, latents: np.ndarray, labels: np.ndarray | None
    ) -> Iterator[jax.Array]:
        size = min(self.batch, len(latents))
        for start in range(0, len(latents), size):
            rows = np.arange(start, start + size) % len(latents)  # filled up: another size would compile anew
            made = decode(state, latents[rows], None if labels is None else labels[rows])
            yield made[: len(latents) - start]


def averaged(state: TrainState) -> tuple[ByPlayer, ByPlayer]:
    """Parameters and network state by player, the moving averages where there are some: what is sampled."""
    return state.params | state.average, state.net_state | state.average_state


def raw(state: TrainState) -> TrainState:
    """The state without its moving averages: the players as trained."""
    return state._replace(average={}, average_state={})


def _draw(seed: Any, first: Any, n: int, dim: int, truncation: float | None) -> jax.Array:
    key = jax.random.key(seed)

    def one(number: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, number)
        if truncation is None:
            return jax.random.normal(own, (dim,))
        return jax.random.truncated_normal(own, -truncation, truncation, (dim,))

    return jax.vmap(one)(first + jnp.arange(n, dtype=jnp.uint32))


_latents = jax.jit(_draw, static_argnums=(2, 3, 4))
