"""A small classifier of a labelled data set, trained here: it names what a generator has drawn."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gan_cli import transforms
from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.scaling import normalise
from gan_cli.models.layers import dense, down
from gan_cli.storage import cache

_INIT = nnx.initializers.he_normal()
_BATCH = 100
_EPOCHS = 20
_MOST = 60_000  # examples to train on
_SOURCE = Path(__file__).read_bytes()


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
    """Trained on a data set's examples, judged on those that it holds out; kept in the cache.

    Where none are held out, every tenth example is, of this training only.

    Attributes:
        params: the weights.
        accuracy: the share of the held-out examples that it names right.
        tested_on: their number.
        digest: of all that the weights depend on.
    """

    def __init__(self, data: Dataset):
        """Raises: ValueError: there are no images with labels."""
        if not data.spec.is_image or data.spec.num_classes is None:
            raise ValueError("a classifier needs images with labels")
        # Every example has a draw of its own, so that those of a class lie together no more.
        chosen = np.random.default_rng(0).permutation(data.size)[:_MOST]
        held_out = data.held_out is not None
        tested = np.arange(0) if held_out else chosen[::10]
        self._rows = chosen if held_out else np.delete(chosen, np.s_[::10])
        self._data = data
        network = _Network(data.spec.shape, data.spec.num_classes, nnx.Rngs(0))
        self._graph, start = nnx.split(network)
        leaves, structure = jax.tree.flatten(start)
        told = None
        if data.held_out is not None:
            told = Dataset(data.name, data.spec, data.held_out, data.held_out_labels).fingerprint()
        self.digest = cache.digest("classifier", _SOURCE, data.fingerprint(), told, data.spec.num_classes)

        def make() -> dict[str, np.ndarray]:
            params = self._train(start)
            self.params = params
            tests = {"examples": data.held_out, "labels": data.held_out_labels} if held_out else data.take(tested)
            right = self(normalise(jnp.asarray(tests["examples"])))[1].argmax(1) == tests["labels"]
            stored = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
            return stored | {"accuracy": np.array(right.mean()), "tested_on": np.array(len(right))}

        found = cache.arrays("classifier", self.digest, make)
        self.params = jax.tree.unflatten(structure, [jnp.asarray(found[str(i)]) for i in range(len(leaves))])
        self.accuracy, self.tested_on = float(found["accuracy"]), int(found["tested_on"])

    def _train(self, params: nnx.State) -> nnx.State:
        taken = self._data.take(self._rows)
        examples, labels = jnp.asarray(taken["examples"]), jnp.asarray(taken["labels"])
        size = min(_BATCH, len(examples))
        per_epoch = len(examples) // size
        optimiser = optax.adam(optax.cosine_decay_schedule(1e-3, _EPOCHS * per_epoch))

        def step(carry: tuple, given: tuple) -> tuple[tuple, None]:
            (params, state), (rows, key) = carry, given
            images = transforms.shift(normalise(examples[rows]), key, 1 / 14, "edge")

            def loss(params: nnx.State) -> jax.Array:
                _, logits = self.apply(params, images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        order = np.random.default_rng(0)
        rows = [order.permutation(len(examples))[: per_epoch * size] for _ in range(_EPOCHS)]
        keys = jax.random.split(jax.random.key(0), _EPOCHS * per_epoch)
        given = jnp.asarray(np.concatenate(rows).reshape(-1, size)), keys
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, given)[0])
        return run((params, optimiser.init(params)))[0]

    def apply(self, params: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``[n, h, w, c]`` images in [-1, 1] -> features ``[n, 64]`` and logits ``[n, classes]``; pure."""
        return nnx.merge(self._graph, params)(x)

    def __call__(self, images: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """``[n, h, w, c]`` images in [-1, 1] -> features ``[n, 64]`` and class probabilities ``[n, classes]``."""
        apply = jax.jit(self.apply)
        parts = [apply(self.params, images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        features, logits = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
        return features, np.asarray(jax.nn.softmax(logits))
