"""A small classifier of a labelled data set, trained here: it names what a generator has drawn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gan_cli import transforms
from gan_cli.data.source import Dataset, normalise
from gan_cli.models.layers import dense, down

_INIT = nnx.initializers.he_normal()
_BATCH = 100


class _Network(nnx.Module):
    """Two convolutions of stride 2, 64 features, a logit a class."""

    def __init__(self, shape: tuple[int, ...], classes: int, rngs: nnx.Rngs):
        self.first = down(shape[-1], 32, rngs, init=_INIT)
        self.second = down(32, 64, rngs, init=_INIT)
        self.third = dense(-(-shape[0] // 4) * -(-shape[1] // 4) * 64, 64, rngs, init=_INIT)
        self.out = dense(64, classes, rngs, init=_INIT)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x, train=False)), train=False))
        features = jax.nn.relu(self.third(x.reshape(len(x), -1), train=False))
        return features, self.out(features, train=False)


class Classifier:
    """Trained on a data set's examples, judged on those that it holds out.

    Attributes:
        accuracy: the share of the held-out examples that it names right.
    """

    def __init__(self, data: Dataset, *, epochs: int = 20, seed: int = 0):
        if data.labels is None or data.held_out is None or not data.spec.is_image or data.spec.num_classes is None:
            raise ValueError("a classifier needs images with labels, some of them held out")
        self._classes = data.spec.num_classes
        network = _Network(data.spec.shape, self._classes, nnx.Rngs(seed))
        self._graph, params = nnx.split(network)
        self._params = self._train(params, np.asarray(data.examples), data.labels, epochs, seed)
        found = self(np.asarray(normalise(data.held_out)))[1].argmax(1)
        self.accuracy = float((found == data.held_out_labels).mean())

    def _train(
        self, params: nnx.State, examples: np.ndarray, labels: np.ndarray, epochs: int, seed: int
    ) -> nnx.State:
        per_epoch = len(examples) // _BATCH
        optimiser = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * per_epoch))

        def step(carry: tuple, given: tuple) -> tuple[tuple, None]:
            (params, state), (rows, key) = carry, given
            images = transforms.shift(normalise(arrays[rows]), key, 1 / 14, "edge")

            def loss(params: nnx.State) -> jax.Array:
                _, logits = nnx.merge(self._graph, params)(images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, targets[rows]).mean()

            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        arrays, targets = jnp.asarray(examples), jnp.asarray(labels)
        order = np.random.default_rng(seed)
        rows = [order.permutation(len(examples))[: per_epoch * _BATCH] for _ in range(epochs)]
        keys = jax.random.split(jax.random.key(seed), epochs * per_epoch)
        given = jnp.asarray(np.concatenate(rows).reshape(-1, _BATCH)), keys
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, given)[0])
        return run((params, optimiser.init(params)))[0]

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, x: nnx.merge(self._graph, params)(x))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``[n, h, w, c]`` images in [-1, 1] -> features ``[n, 64]`` and class probabilities ``[n, classes]``."""
        parts = [self._apply(self._params, images[i : i + 500]) for i in range(0, len(images), 500)]
        features, logits = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
        return features, np.asarray(jax.nn.softmax(logits))


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """The Frechet distance of two Gaussians fitted to features ``[n, f]`` (Heusel et al. 2017, eq. 6).

    The trace of the product's root is the sum of the roots of the product's eigenvalues, which are real and not
    negative but for rounding.
    """
    means = [features.astype(np.float64).mean(0) for features in (first, second)]
    covariances = [np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (first, second)]
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0, None))
    spread = sum(np.trace(covariance) for covariance in covariances) - 2 * roots.sum()
    return float(((means[0] - means[1]) ** 2).sum() + spread)
