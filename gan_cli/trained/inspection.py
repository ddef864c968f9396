"""Inspection of a trained GAN: latent paths and directions, and maps of the discriminator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.engine.state import TrainState
from gan_cli.metrics.targets import GENERATE
from gan_cli.trained.sampling import averaged

# Networks require a random key as an argument, but use it only in training.
_KEY = jax.random.key(0)


def slerp(start: np.ndarray, end: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Spherical interpolation between latents (White 2016).

    The normalised latents are interpolated along a great circle, and the norms linearly. Linear interpolation of
    the latents themselves would pass through points of small norm. Such points are very unlikely under the Gaussian
    distribution of the latents in training.

    Args:
        start: latents ``[n, d]`` at ``t = 0``.
        end: latents ``[n, d]`` at ``t = 1``.
        t: interpolation positions ``[m]`` in [0, 1].

    Returns:
        Latents ``[n, m, d]``.
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
    between: np.ndarray = (along_a * a + along_b * b) * ((1 - t) * lengths[0] + t * lengths[1])
    return between


def walk(latents: np.ndarray, frames: int) -> np.ndarray:
    """Latents on ``n`` closed paths, interpolated with ``slerp`` between the points of each path.

    Args:
        latents: the points of the paths, ``[points, n, d]``: ``latents[:, i]`` are the points of path ``i``.
        frames: number of latents from each point (included) to the next point (excluded).

    Returns:
        Latents ``[points * frames, n, d]``.
    """
    t = np.arange(frames) / frames
    legs = zip(latents, np.roll(latents, -1, 0), strict=True)
    return np.concatenate([slerp(start, end, t).swapaxes(0, 1) for start, end in legs])


# The functions below call the method `network` of the parameter `game`. The type of `game` is Any, because the
# class `Game` does not declare this method.


def _latent_dim(game: Any) -> int:
    size: int = game.tasks[GENERATE].inputs["latents"].size
    return size


def sefa(game: Any, state: TrainState) -> np.ndarray:
    """Closed-form latent directions of the generator (SeFa; Shen and Zhou 2021, eq. 5).

    The directions are the eigenvectors of ``A A^T``, where ``A`` is the part of the first layer's kernel that is
    multiplied with the latents.

    Returns:
        Unit vectors ``[latent_dim, latent_dim]``, sorted by descending eigenvalue. The eigenvalue of a direction is
        the squared norm of the change in the first layer's output when the latents move by 1 in this direction.
    """
    kernel = np.asarray(game.network("generator", *averaged(state)).entry.kernel[...])[: _latent_dim(game)]
    _, vectors = np.linalg.eigh(kernel @ kernel.T)
    return vectors[:, ::-1].T


def ganspace(game: Any, state: TrainState, latents: np.ndarray, labels: Any = None) -> np.ndarray:
    """Latent directions from principal components (GANSpace; Harkonen et al. 2020, section 2.1).

    The function computes the principal components of the output of the first non-linear layer over many latents. A
    linear regression of the latents on the coordinates along the components gives the latent direction of each
    component (eq. 2). If the layer were linear, ``sefa`` would give the same directions.

    Args:
        game: the game.
        state: the training state. If it contains moving averages of the parameters, the moving averages are used.
        latents: samples of the latent distribution ``[n, latent_dim]``, with n several times ``latent_dim``.
        labels: labels ``[n]`` for a conditional game, else None.

    Returns:
        Unit vectors ``[directions, latent_dim]``, sorted by descending variance along the principal components.
        The number of directions is ``latent_dim``, or the number of components if that is smaller.
    """
    inputs = (latents,) if labels is None else (latents, labels)
    early = game.network("generator", *averaged(state)).early(*map(jnp.asarray, inputs), train=False, key=_KEY)
    y = np.asarray(early, np.float64).reshape(len(latents), -1)
    _, _, components = np.linalg.svd(y - y.mean(0), full_matrices=False)
    count = min(_latent_dim(game), len(components))
    coordinates = (y - y.mean(0)) @ components[:count].T
    coordinates /= coordinates.std(0).clip(1e-12)
    directions, *_ = np.linalg.lstsq(coordinates, latents - latents.mean(0), rcond=None)
    unit: np.ndarray = directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-12)
    return unit


def activations(game: Any, state: TrainState, examples: np.ndarray, labels: Any = None) -> list[np.ndarray]:
    """Activation maps and the saliency map of the discriminator.

    The activation map of a stage is the mean over channels of the absolute activation. The saliency map is the mean
    over channels of the absolute gradient of the logit with respect to the image (Simonyan et al. 2014, section
    3.1).

    Args:
        game: the game.
        state: the training state.
        examples: normalised images ``[n, h, w, c]``, the inputs of the discriminator.
        labels: labels ``[n]`` for a conditional game, else None.

    Returns:
        A list of maps. For a convolutional discriminator, it contains the activation map ``[n, h', w']`` of each
        stage and, as the last entry, the saliency map ``[n, h, w]``. For a fully connected discriminator, it
        contains only the saliency map.
    """
    network = game.network("discriminator", state.params, state.net_state)
    more = () if labels is None else (jnp.asarray(labels),)
    x = jnp.asarray(examples)

    def logits(x: jax.Array) -> jax.Array:
        output = network(x, *more, train=False, key=_KEY)
        summed: jax.Array = (output[0] if isinstance(output, tuple) else output).sum()
        return summed

    inner = getattr(network, "network", network)
    stages = network.maps(x, *more, train=False, key=_KEY) if hasattr(inner, "maps") else []
    return [np.asarray(jnp.abs(stage).mean(-1)) for stage in (*stages, jax.grad(logits)(x))]
