"""Looking inside a trained GAN: ways through its latents, and what its discriminator looks at."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.engine.state import TrainState
from gan_cli.trained.sampling import averaged

_KEY = jax.random.key(0)  # of networks that draw nothing, as they do not train


def slerp(start: np.ndarray, end: np.ndarray, t: np.ndarray) -> np.ndarray:
    """From ``start`` to ``end`` ``[n, d]`` at ``t`` ``[m]``: ``[n, m, d]``, along great circles (White 2016).

    The lengths go evenly from the one to the other, since those of Gaussian latents are nearly equal: between them
    on a straight line are points that the generator has hardly seen.
    """
    t = np.asarray(t, np.float32)[:, None]
    lengths = [np.linalg.norm(z, axis=-1, keepdims=True)[:, None] for z in (start, end)]
    a, b = (z[:, None] / np.maximum(length, 1e-12) for z, length in zip((start, end), lengths, strict=True))
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    nearly_straight = sine < 1e-6
    sine = np.where(nearly_straight, 1, sine)
    along_a = np.where(nearly_straight, 1 - t, np.sin((1 - t) * angle) / sine)
    along_b = np.where(nearly_straight, t, np.sin(t * angle) / sine)
    return (along_a * a + along_b * b) * ((1 - t) * lengths[0] + t * lengths[1])


def walk(latents: np.ndarray, frames: int) -> np.ndarray:
    """A closed way through ``[points, n, d]`` latents: ``[points * frames, n, d]``, n ways beside each other."""
    t = np.arange(frames) / frames
    legs = zip(latents, np.roll(latents, -1, 0), strict=True)
    return np.concatenate([slerp(start, end, t).swapaxes(0, 1) for start, end in legs])


def sefa(game: Any, state: TrainState) -> np.ndarray:
    """Directions ``[latent_dim, latent_dim]``, the strongest first: unit vectors along which the first layer's
    output changes most, eigenvectors of its kernel times itself (Shen and Zhou 2021, eq. 5)."""
    kernel = np.asarray(game.network("generator", *averaged(state)).entry.kernel[...])[: game.latent_dim]
    _, vectors = np.linalg.eigh(kernel @ kernel.T)
    return vectors[:, ::-1].T


def ganspace(game: Any, state: TrainState, latents: np.ndarray, labels: Any = None) -> np.ndarray:
    """Directions ``[latent_dim, latent_dim]``, the strongest first, after Harkonen et al. 2020 (section 2.1).

    The principal components of what the first non-linear layer makes of many latents, and for each the unit vector
    of the latents whose regression on it is largest (their eq. 2). A linear layer's would be those of ``sefa``.

    Args:
        latents: ``[n, latent_dim]``, n several times larger than ``latent_dim``.
        labels: ``[n]``, of a conditional game.
    """
    inputs = (latents,) if game.classes is None else (latents, labels)
    early = game.network("generator", *averaged(state)).early(*map(jnp.asarray, inputs), train=False, key=_KEY)
    y = np.asarray(early, np.float64).reshape(len(latents), -1)
    _, _, components = np.linalg.svd(y - y.mean(0), full_matrices=False)
    count = min(game.latent_dim, len(components))
    coordinates = (y - y.mean(0)) @ components[:count].T
    coordinates /= coordinates.std(0).clip(1e-12)
    directions, *_ = np.linalg.lstsq(coordinates, latents - latents.mean(0), rcond=None)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-12)


def activations(game: Any, state: TrainState, examples: np.ndarray, labels: Any = None) -> list[np.ndarray]:
    """What the discriminator makes of ``[n, h, w, c]`` images: maps ``[n, h', w']``, one for each of its stages.

    The mean size of each place's features over the channels. Last, at the image's own size, how much each pixel
    moves the logit: the size of its gradient (Simonyan et al. 2014, section 3.1); of a fully connected network it
    is the only one.
    """
    network = game.network("discriminator", state.params, state.net_state)
    more = () if game.classes is None else (jnp.asarray(labels),)
    x = jnp.asarray(examples)

    def logits(x: jax.Array) -> jax.Array:
        said = network(x, *more, train=False, key=_KEY)
        return (said[0] if isinstance(said, tuple) else said).sum()

    inner = getattr(network, "network", network)
    stages = network.maps(x, *more, train=False, key=_KEY) if hasattr(inner, "maps") else []
    return [np.asarray(jnp.abs(stage).mean(-1)) for stage in (*stages, jax.grad(logits)(x))]
