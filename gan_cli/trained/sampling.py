"""Draws numbered samples. Sample ``i`` of a seed does not depend on how many samples are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import BATCH
from gan_cli.engine.state import TrainState
from gan_cli.types import ByPlayer, Game


class Sampler:
    """Draws samples from the generator of a game.

    All batches have the same size, so that the generator is compiled only once.

    Args:
        game: a game that can draw samples.
    """

    batch = BATCH

    def __init__(self, game: Game):
        assert game.spec is not None
        self.game, self.feature = game, game.spec["x"]

        def decode(state: TrainState, latents: jax.Array, labels: jax.Array | None) -> jax.Array:
            return game.decode(*averaged(state), latents, labels)

        self._decode = jax.jit(decode)
        self._stored = jax.jit(lambda *arguments: self.feature.decode(decode(*arguments)))

    def latents(self, seed: int, first: int, n: int, truncation: float | None = None) -> np.ndarray:
        """The latents ``first`` to ``first + n - 1`` of a seed, ``[n, latent_dim]``, from N(0, I).

        Args:
            seed: seed of the latents.
            first: number of the first latent, counted from 0.
            n: number of latents.
            truncation: limit on the absolute value of each component. The components then have a truncated normal
                distribution (Brock et al. 2019, section 3.1). With None, there is no limit.
        """
        return np.asarray(_latents(np.uint32(seed), np.uint32(first), n, self.game.latent_dim, truncation))

    def labels(self, first: int, n: int) -> np.ndarray | None:
        """The labels ``[n]`` of samples ``first`` to ``first + n - 1``, or None for a game without classes.

        Sample ``i`` has the label ``i`` modulo the number of classes.
        """
        classes = self.game.classes
        return None if classes is None else np.arange(first, first + n, dtype=np.int32) % classes

    def __call__(self, state: TrainState, latents: np.ndarray, labels: np.ndarray | None = None) -> jax.Array:
        """Samples ``[n, *shape]`` for ``n`` latents. The values of images are in [-1, 1].

        JAX computes the samples asynchronously, so the method may return before they are computed.
        """
        return jnp.concatenate(list(self._parts(self._decode, state, latents, labels)))

    def stored(
        self, state: TrainState, latents: np.ndarray, labels: np.ndarray | None = None
    ) -> Iterator[jax.Array]:
        """Yields batches of samples in the format in which they are stored in files, as arrays on the device.

        Images are uint8 with values from 0 to 255. Points have the format that ``__call__`` returns.
        """
        return self._parts(self._stored, state, latents, labels)

    def numbered(self, state: TrainState, seed: int, n: int) -> Iterator[jax.Array]:
        """Yields batches of the first ``n`` samples of a seed, in the format of the method ``stored``."""
        return self.stored(state, self.latents(seed, 0, n), self.labels(0, n))

    def _parts(
        self,
        decode: Callable[[TrainState, np.ndarray, np.ndarray | None], jax.Array],
        state: TrainState,
        latents: np.ndarray,
        labels: np.ndarray | None,
    ) -> Iterator[jax.Array]:
        size = min(self.batch, len(latents))
        for start in range(0, len(latents), size):
            # Repeated rows fill up the last batch, because JAX would compile the generator again for another size.
            rows = np.arange(start, start + size) % len(latents)
            made = decode(state, latents[rows], None if labels is None else labels[rows])
            yield made[: len(latents) - start]


def averaged(state: TrainState) -> tuple[ByPlayer, ByPlayer]:
    """A pair of mappings by player: the parameters and the network states for sampling.

    For players with moving averages in ``state``, the mappings contain the moving averages.
    """
    return state.params | state.average, state.net_state | state.average_state


def raw(state: TrainState) -> TrainState:
    """A copy of the state without moving averages, so that samples are drawn with the latest parameters."""
    return state._replace(average={}, average_state={})


def _draw(seed: Any, first: Any, n: int, dim: int, truncation: float | None) -> jax.Array:
    key = jax.random.key(seed)

    def latent(number: jax.Array) -> jax.Array:
        key_of_number = jax.random.fold_in(key, number)
        if truncation is None:
            return jax.random.normal(key_of_number, (dim,))
        return jax.random.truncated_normal(key_of_number, -truncation, truncation, (dim,))

    return jax.vmap(latent)(first + jnp.arange(n, dtype=jnp.uint32))


_latents = jax.jit(_draw, static_argnums=(2, 3, 4))
