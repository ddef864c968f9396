"""Feature extractors: they define the feature space in which metrics compare samples and data.

Each public function of this module takes the reference data set and returns an ``Extractor``. Every evaluation
result states the name of the extractor. Images are uint8 or uint16, as in image files, so that samples of other
programs can be evaluated in the same way. Points are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.video.feature import Video
from gan_cli.errors import UserError
from gan_cli.metrics.classifier import Classifier
from gan_cli.storage import cache, files
from gan_cli.types import PositiveInt, Tree

Examples = np.ndarray | jax.Array


@dataclass(frozen=True, eq=False)
class Extractor:
    """Computes the features of examples and, if the feature network is a classifier, the logits.

    Attributes:
        name: description of the features in evaluation results.
        digest: hash that identifies the extractor in the cache. Extractors that compute different features
            have different hashes.
        params: weights, the first argument of ``apply``.
        apply: ``(params, examples) -> (features [n, f], logits [n, classes] or None)``. The
            extractor compiles this function.
        batch: number of examples per call of ``apply``.
        frames: number of frames whose features ``apply`` returns side by side. 0 for features of a whole example.
        gives_logits: whether ``apply`` returns logits.
        of_classes: whether the logits belong to the classes of the data set.
    """

    name: str
    digest: str
    params: Tree
    apply: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array | None]]
    batch: int = BATCH
    frames: int = 0
    gives_logits: bool = False
    of_classes: bool = False

    def __call__(self, batches: Iterable[Examples]) -> tuple[np.ndarray, np.ndarray | None]:
        """A pair: the features and the logits of the examples in all batches, as NumPy arrays.

        The batches can have any size. If ``gives_logits`` is false, the second element of the pair is None.
        """
        found: list[Any] = []
        for batch in _of_size(batches, self.batch):
            n = len(batch)
            if n < self.batch:  # padded, because another batch size would require another compilation
                batch = np.concatenate([batch, np.zeros((self.batch - n, *batch.shape[1:]), batch.dtype)])
            if len(found) > 1:  # the device computes found[-1] while found[-2] is fetched
                found[-2] = jax.device_get(found[-2])
            features, logits = self._compiled(self.params, batch)
            found.append((features[:n], None if logits is None else logits[:n]))
        found = jax.device_get(found)
        features = np.concatenate([features for features, _ in found])
        return features, None if found[0][1] is None else np.concatenate([logits for _, logits in found])

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self.apply)


class _Trained(Extractor):
    """An extractor whose network is trained when the features are first needed, not when the data are checked.

    Args:
        train: returns the extractor with the trained network.
    """

    def __init__(self, train: Callable[[], Extractor]):
        self.__dict__.update(_train=train, gives_logits=True, of_classes=True)

    @functools.cached_property
    def _trained(self) -> Extractor:
        return cast(Extractor, self.__dict__["_train"]())

    def __getattr__(self, name: str) -> Any:
        if name in ("name", "digest", "params", "apply"):
            return getattr(self._trained, name)
        raise AttributeError(name)


def _of_size(batches: Iterable[Examples], size: int) -> Iterator[Examples]:
    """Yields the examples in batches of ``size`` examples. The last batch may be smaller.

    A batch on the device is copied to the host only if it must be concatenated with another batch.
    """
    rest: Examples | None = None
    for batch in batches:
        rest = batch if rest is None else np.concatenate([rest, batch])
        while rest is not None and len(rest) >= size:
            taken, rest = rest[:size], rest[size:] if len(rest) > size else None
            yield taken
    if rest is not None:
        yield rest


def pixels(data: Dataset) -> Extractor:
    """The values of examples as networks see them: pixels in [-1, 1], or the coordinates of points."""

    feature = data.feature

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        return feature.encode(x).reshape(len(x), -1), None

    return Extractor(feature.values_name, "pixels", (), apply)


def random(data: Dataset, *, width: int = 64, seed: int = 0) -> Extractor:
    """Fast but meaningless features for tests: the output of one ReLU layer with random weights.

    Args:
        width: number of features.
        seed: seed of the random weights.
    """
    feature = data.feature
    kernel = np.random.default_rng(seed).standard_normal((feature.size, width)) / np.sqrt(feature.size)

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(feature.encode(x).reshape(len(x), -1) @ params), None

    params = kernel.astype(np.float32)
    return Extractor(f"random ({width})", cache.digest("random", width, seed, feature.size), params, apply)


def classifier(data: Dataset) -> Extractor:
    """Last hidden layer of a small convolutional classifier that is trained on the images of the data set.

    The cache stores the trained classifier.

    Raises:
        UserError: the data are not images, or have no labels.
    """
    if len(data.feature.shape) != 3:
        raise UserError(
            f"features=classifier: needs labelled images, but {data.name} consists of {data.feature.noun}. Use "
            "features=auto, which chooses features for them."
        )
    if data.classes is None:
        raise UserError(
            f"features=classifier: needs labelled images to train the classifier, but {data.name} has no labels. "
            "Use features=pixels, or features=inception with features.weights=FILE."
        )
    if data.size < 2:
        raise UserError(
            f"features=classifier: needs at least 2 labelled images, but {data.name} has only {data.size}. Use "
            "features=pixels, or a larger data set."
        )

    def train() -> Extractor:
        network = Classifier(data)

        def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return network.apply(params, data.feature.encode(x))

        name = f"classifier ({network.accuracy:.1%} of {network.tested_on:,} held-out {data.name} examples right)"
        return Extractor(name, network.digest, network.params, apply)

    return _Trained(train)


def inception(data: Dataset, *, weights: str | None = None) -> Extractor:
    """The 2048 pooled features of the Inception network that the FID uses (Heusel et al. 2017).

    RGBA images are blended with white, because the network takes three channels.

    Args:
        weights: path of the file with the weights. If null, an error message states where to download the file.

    Raises:
        UserError: the file is missing or has a wrong hash, or the data are not images.
    """
    from gan_cli.metrics import inception as network

    if isinstance(data.feature, Video):
        raise UserError(
            "features=inception: needs images. For clips, use features=frames and features.weights=FILE (gan-eval: "
            "--features frames --weights FILE)."
        )
    if len(data.feature.shape) != 3:
        raise UserError(
            f"features=inception: needs images, but {data.name} consists of {data.feature.noun}. Use "
            "features=auto, which chooses features for them."
        )
    if data.feature.shape[-1] not in (1, 3, 4):
        raise UserError(
            f"features=inception: needs images with 1, 3 or 4 channels, but the images of {data.name} "
            f"have {data.feature.shape[-1]}. Use features=pixels."
        )
    if weights is None:
        raise UserError(
            f"features.weights=null: features=inception needs the file with the weights. {network.SOURCES}"
        )
    loaded = network.load(files.expanded(weights))
    return Extractor("inception (2015-12-05)", network.SHA256, loaded.params, network.apply, network.BATCH, True)


def thumbnails(data: Dataset, *, side: PositiveInt = 8) -> Extractor:
    """Pixels of images that are reduced to thumbnails, for large images without labels.

    Metrics in this feature space notice changes of colours and large shapes, but no details.

    Args:
        side: largest height and width of the thumbnails in pixels.

    Raises:
        UserError: the data are not images.
    """
    feature = data.feature
    if len(feature.shape) != 3:
        raise UserError(
            f"features=thumbnails: needs images, but {data.name} consists of {feature.noun}. Use features=auto, "
            "which chooses features for them."
        )
    height, width = (min(length, side) for length in feature.shape[:2])

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        small = jax.image.resize(feature.encode(x), (len(x), height, width, feature.shape[-1]), "linear")
        return small.reshape(len(x), -1), None

    name = f"thumbnails ({height}x{width} pixels)"
    return Extractor(name, cache.digest("thumbnails", height, width, feature.shape), (), apply)


def frames(
    data: Dataset,
    *,
    frames: PositiveInt | None = None,
    interval: PositiveInt | None = None,
    weights: str | None = None,
) -> Extractor:
    """Features of a few frames of a clip, side by side: thumbnails (8x8 pixels) or Inception features.

    The first frame of a clip is always among them. Metrics in this feature space notice the order of the frames.

    Args:
        frames: number of frames. With null, four, or all frames of a shorter clip.
        interval: distance between successive frames. With null, the largest that fits into a clip.
        weights: path of the file with the weights of the Inception network. With null, thumbnails.

    Raises:
        UserError: the data are not clips, or the clips are shorter than the frames and their interval.
    """
    feature = data.feature
    if not isinstance(feature, Video):
        raise UserError(
            f"features=frames: needs clips, but {data.name} consists of {feature.noun}. Use features=auto, which "
            "chooses features for them."
        )
    count = min(4, feature.frames) if frames is None else frames
    apart = max((feature.frames - 1) // max(count - 1, 1), 1) if interval is None else interval
    needed = (count - 1) * apart + 1
    if needed > feature.frames:
        raise UserError(
            f"features.frames={count}: the features of {count} frames at an interval of {apart} need clips of "
            f"{needed} frames, but the clips of {data.name} have {feature.frames}. Reduce features.frames or "
            "features.interval."
        )
    first = Dataset(f"frames of {data.name}", {"x": feature.frame}, {"x": data.take(np.arange(1))[data.main][:, 0]})
    of_frame = thumbnails(first) if weights is None else inception(first, weights=weights)

    def apply(params: Tree, x: jax.Array) -> tuple[jax.Array, None]:
        chosen = x[:, :needed:apart]
        features, _ = of_frame.apply(params, chosen.reshape(-1, *chosen.shape[2:]))
        return features.reshape(len(x), -1), None

    return Extractor(
        f"{of_frame.name} of {count} frames" + (f" at an interval of {apart}" if count > 1 else ""),
        cache.digest("frames", of_frame.digest, count, apart),
        of_frame.params,
        apply,
        max(of_frame.batch // count, 1),
        count,
    )


def auto(data: Dataset) -> Extractor:
    """Features that need no download: ``classifier`` for labelled images, ``frames`` for clips, or the values.

    Raises:
        UserError: the data are images without labels.
    """
    made: Extractor = globals()[data.feature.extractor](data)
    return made
