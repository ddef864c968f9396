"""What turns examples into features: the space in which samples and data are compared.

Each is a function of the reference data set, and says with every result which it was. Images come as uint8 in
0..255, as they lie in a file, so that samples of any program are evaluated alike; points come as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.scaling import normalise
from gan_cli.errors import UserError
from gan_cli.metrics.classifier import Classifier
from gan_cli.storage import cache
from gan_cli.types import Tree


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network of features, or what stands for one.

    Attributes:
        name: what results say of it.
        digest: of all that its features depend on: they are cached under it.
        params: its weights.
        apply: ``(params, examples) -> (features [n, f], logits [n, classes] or None)``, to be compiled.
        batch: how many examples to take at a time.
        gives_logits: whether there are logits.
        of_classes: whether they are of the data's own classes.
    """

    name: str
    digest: str
    params: Tree
    apply: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array | None]]
    batch: int = BATCH
    gives_logits: bool = False
    of_classes: bool = False

    def __call__(self, batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and logits of examples that come in batches of any sizes, arrays of the host."""
        found: list[Any] = []
        for batch in _of_size(batches, self.batch):
            n = len(batch)
            if n < self.batch:  # filled up, since another size would compile anew
                batch = np.concatenate([batch, np.zeros((self.batch - n, *batch.shape[1:]), batch.dtype)])
            if len(found) > 1:  # one batch is computed while the one before is fetched
                found[-2] = jax.device_get(found[-2])
            features, logits = self._compiled(self.params, batch)
            found.append((features[:n], None if logits is None else logits[:n]))
        found = jax.device_get(found)
        features = np.concatenate([features for features, _ in found])
        return features, None if found[0][1] is None else np.concatenate([logits for _, logits in found])

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self.apply)


def _of_size(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """The same examples, ``size`` at a time, the last ones fewer; what is on the device stays there if it can."""
    rest: Any = None
    for batch in batches:
        rest = batch if rest is None else np.concatenate([rest, batch])
        while rest is not None and len(rest) >= size:
            taken, rest = rest[:size], rest[size:] if len(rest) > size else None
            yield taken
    if rest is not None:
        yield rest


def pixels(data: Dataset) -> Extractor:
    """The values themselves, images scaled to [-1, 1]."""

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        return normalise(x).reshape(len(x), -1), None

    return Extractor("pixels" if data.spec.is_image else "coordinates", "pixels", (), apply)


def random(data: Dataset, *, width: int = 64, seed: int = 0) -> Extractor:
    """One layer of ``width`` random half-planes: fixed, meaningless, and quick. For tests."""
    kernel = np.random.default_rng(seed).standard_normal((data.spec.size, width)) / np.sqrt(data.spec.size)

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(normalise(x).reshape(len(x), -1) @ params), None

    params = kernel.astype(np.float32)
    return Extractor(f"random ({width})", cache.digest("random", width, seed, data.spec.size), params, apply)


def classifier(data: Dataset) -> Extractor:
    """The last hidden layer of a small convolutional network, trained here on the labelled data, and cached.

    Raises:
        UserError: the data are no images, or have no labels.
    """
    if not data.spec.is_image or data.spec.num_classes is None:
        raise UserError(
            f"features=classifier: {data.name} has no labelled images to train one on. Features that need no "
            "labels: pixels; inception, with the weights that features.weights names."
        )
    network = Classifier(data)

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return network.apply(params, normalise(x))

    told = f"classifier ({network.accuracy:.1%} of {network.tested_on:,} held-out {data.name} examples right)"
    return Extractor(told, network.digest, network.params, apply, gives_logits=True, of_classes=True)


def inception(data: Dataset, *, weights: str | None = None) -> Extractor:
    """The 2048 pooled features of the Inception network that the FID is defined with (Heusel et al. 2017).

    Args:
        weights: the file of its weights.

    Raises:
        UserError: no file, or not the one whose hash is known; or the data are no images.
    """
    from gan_cli.metrics import inception as network

    if not data.spec.is_image:
        raise UserError(f"features=inception: {data.name} has no images.")
    if weights is None:
        raise UserError(f"features=inception: needs features.weights=FILE. {network.SOURCES}")
    loaded = network.load(Path(weights).expanduser())
    return Extractor("inception (2015-12-05)", network.SHA256, loaded.params, network.apply, network.BATCH, True)


def auto(data: Dataset) -> Extractor:
    """What can be had without a download: the classifier for labelled images, coordinates for points.

    Raises:
        UserError: images without labels.
    """
    if not data.spec.is_image:
        return pixels(data)
    return classifier(data)
