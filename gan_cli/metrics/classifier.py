"""A small classifier, trained on labelled examples, that predicts the classes of other examples."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gan_cli import transforms
from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.models.layers import dense, down
from gan_cli.storage import cache
from gan_cli.types import Feature

_INIT = nnx.initializers.he_normal()
_BATCH = 100
_EPOCHS = 20
_MOST = 60_000  # maximum number of training examples
_SOURCE = Path(__file__).read_bytes()
Params = nnx.State[Any, Any]  # maps attribute names to variables or further states


class _Network(nnx.Module):
    """Two convolutions of stride 2, a dense layer of 64 features, and one logit per class."""

    def __init__(self, shape: tuple[int, ...], classes: int, rngs: nnx.Rngs):
        self.first = down(shape[-1], 32, rngs, init=_INIT)
        self.second = down(32, 64, rngs, init=_INIT)
        self.third = dense(-(-shape[0] // 4) * -(-shape[1] // 4) * 64, 64, rngs, init=_INIT)
        self.out = dense(64, classes, rngs, init=_INIT)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x, train=False)), train=False))
        features = jax.nn.relu(self.third(x.reshape(len(x), -1), train=False))
        return features, self.out(features, train=False)


class _Dense(nnx.Module):
    """Three dense layers of 64 units, and one logit per class, for examples that are no images."""

    def __init__(self, shape: tuple[int, ...], classes: int, rngs: nnx.Rngs):
        sizes = (math.prod(shape), 64, 64, 64)
        self.layers = nnx.List([dense(a, b, rngs, init=_INIT) for a, b in pairwise(sizes)])
        self.out = dense(64, classes, rngs, init=_INIT)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = x.reshape(len(x), -1)
        for layer in self.layers:
            features = jax.nn.relu(layer(features, train=False))
        return features, self.out(features, train=False)


class Classifier:
    """A classifier, which is trained on a data set and tested on the held-out examples.

    Images have a convolutional network, and other examples a dense one.

    If the data set has no held-out examples, a tenth of the examples is excluded from training and used for the
    test.

    Args:
        data: examples with labels.
        steps: number of training steps, or None for 20 epochs.
        seed: seed of the initial weights, of the order of the examples and of their shifts.
        cached: whether the cache stores the classifier.

    Attributes:
        params: the weights.
        accuracy: share of the test examples whose class is predicted correctly.
        tested_on: number of test examples.
        digest: hash of everything that the weights depend on.

    Raises:
        ValueError: the data have no labels.
    """

    def __init__(self, data: Dataset, *, steps: int | None = None, seed: int = 0, cached: bool = True):
        if data.classes is None:
            raise ValueError("a classifier needs examples with labels")
        # A random order, because a data set may be sorted by class.
        chosen = np.random.default_rng(0).permutation(data.size)[:_MOST]
        held_out = data.held_out is not None and "label" in data.held_out
        tested = np.arange(0) if held_out else chosen[::10]
        self._rows = chosen if held_out else np.delete(chosen, np.s_[::10])
        self._data, self._encode, self._steps, self._seed = data, data.feature.encode, steps, seed
        make_network = _Network if len(data.feature.shape) == 3 else _Dense
        network = make_network(data.feature.shape, data.classes, nnx.Rngs(seed))
        self._graph, start = nnx.split(network)
        leaves, structure = jax.tree.flatten(start)
        test_data = data.only_held_out().fingerprint() if held_out else None
        terms = () if steps is None and seed == 0 else (steps, seed)
        self.digest = cache.digest("classifier", _SOURCE, data.fingerprint(), test_data, data.classes, *terms)

        def make() -> dict[str, np.ndarray]:
            params = self._train(start)
            self.params = params
            tests = data.held_out if held_out and data.held_out else data.take(tested)
            right = self(self._encode(jnp.asarray(tests[data.main])))[1].argmax(1) == tests["label"]
            stored = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
            return stored | {"accuracy": np.array(right.mean()), "tested_on": np.array(len(right))}

        found = cache.arrays("classifier", self.digest, make) if cached else make()
        self.params = jax.tree.unflatten(structure, [jnp.asarray(found[str(i)]) for i in range(len(leaves))])
        self.accuracy, self.tested_on = float(found["accuracy"]), int(found["tested_on"])

    def _train(self, params: Params) -> Params:
        taken = self._data.take(self._rows)
        examples, labels = jnp.asarray(taken[self._data.main]), jnp.asarray(taken["label"])
        size = min(_BATCH, len(examples))
        per_epoch = len(examples) // size
        steps = self._steps or _EPOCHS * per_epoch
        order = np.random.default_rng(self._seed)
        rows = [order.permutation(len(examples))[: per_epoch * size] for _ in range(-(-steps // per_epoch))]
        keys = jax.random.split(jax.random.key(self._seed), steps)
        batches = jnp.asarray(np.concatenate(rows).reshape(-1, size)[:steps]), keys
        trained: Params = _trained(params, examples, labels, batches, self._graph, self._data.feature)
        return trained

    def apply(self, params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features ``[n, 64]`` and logits ``[n, classes]`` of examples as networks see them, ``[n, *shape]``."""
        return nnx.merge(self._graph, params)(x)

    def logits(self, x: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Features ``[n, 64]`` and logits ``[n, classes]`` of examples as networks see them, ``[n, *shape]``."""
        parts = [_applied(self.params, x[i : i + BATCH], self._graph) for i in range(0, len(x), BATCH)]
        features, logits = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
        return features, logits

    def __call__(self, images: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Features ``[n, 64]`` and class probabilities ``[n, classes]`` of images ``[n, h, w, c]`` in [-1, 1]."""
        features, logits = self.logits(images)
        return features, np.asarray(jax.nn.softmax(logits))


# Module-level functions, so that classifiers of equal shapes share their compiled programs.
@functools.partial(jax.jit, static_argnums=2)
def _applied(params: Params, x: jax.Array, graph: Any) -> tuple[jax.Array, jax.Array]:
    found: tuple[jax.Array, jax.Array] = nnx.merge(graph, params)(x)
    return found


@functools.partial(jax.jit, static_argnums=(4, 5))
def _trained(
    params: Params,
    examples: jax.Array,
    labels: jax.Array,
    batches: tuple[jax.Array, jax.Array],
    graph: Any,
    feature: Feature,
) -> Params:
    """The weights after a step of Adam on each of the batches, in which images are shifted at random.

    Args:
        params: the initial weights.
        examples: the stored examples, ``[n, *stored_shape]``.
        labels: the classes ``[n]``.
        batches: indices of examples ``[steps, batch]``, and random keys ``[steps]``.
        graph: the graph definition of the network.
        feature: the feature of the examples.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-3, len(batches[0])))

    def step(
        carry: tuple[Params, optax.OptState], batch: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Params, optax.OptState], None]:
        (params, state), (rows, key) = carry, batch
        x = feature.encode(examples[rows])
        if x.ndim == 4:
            x = transforms.shift(x, key, 1 / 14, "edge")

        def loss(params: Params) -> jax.Array:
            _, logits = nnx.merge(graph, params)(x)
            losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
            return losses.mean()

        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    trained: Params = jax.lax.scan(step, (params, optimiser.init(params)), batches)[0][0]
    return trained
