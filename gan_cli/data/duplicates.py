"""Copies among the images of a data set: training images that repeat each other or held-out images.

A pair of images is an exact copy if all values are equal. It is a near copy if one image becomes the other by a
shift of at most one pixel, a mirroring, or a change of brightness and contrast, up to the noise of a compression.
Near copies are searched in three passes, each of which sees fewer pairs than the pass before:

1. Amplitudes of the lowest spatial frequencies, which hardly change under these operations, give the candidates.
2. Images of 6x6 pixels show which candidates may be equal as they are, and which after a mirroring.
3. The remaining pairs are compared pixel by pixel.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image
from gan_cli.errors import UserError
from gan_cli.storage import cache

_SOURCE = Path(__file__).read_bytes()
_BLOCK = 2048  # images whose descriptions are computed at a time
_CELLS = 2**22  # distances computed at a time: 16 MiB
_CACHED = 2000  # smaller data are searched in less time than it takes to read the cache
_SHOWN = 3  # number of pairs that a line names

_FREQUENCIES = 6  # highest frequency of a description, in periods per image
_COMPONENTS = 24  # principal components of the descriptions
_REACH = 0.115  # largest distance between the descriptions of a candidate pair
_MOST = 20  # candidate pairs per image that are examined, at most
_COARSE = 0.9  # smallest correlation of the 6x6 images
# Images on a scale from 0 to 255 are copies if they differ by at most _NOISE plus _SHARE of their contrast, because
# JPEG errors grow with the contrast, and by at most _RELATIVE of it. Colours may differ by _COLOURS.
_NOISE, _SHARE, _RELATIVE, _COLOURS = 5.5, 0.045, 0.3, 6.0
_FLOOR = 3.0  # noise of images in which this noise would dominate the description
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue (ITU-R BT.601)

_ADVICE = (
    "Set dataset.duplicates=drop to leave out training images that repeat another training image or a held-out "
    "image, or dataset.duplicates=keep to skip the search."
)


class Copies(NamedTuple):
    """Pairs of images that are copies.

    Attributes:
        pairs: indices ``[p, 2]``, the smaller one first. A group of equal images has a pair of its first image with
            each of the others.
        exact: whether all values of the images are equal, ``[p]``.
    """

    pairs: np.ndarray
    exact: np.ndarray


def treated(data: Dataset) -> Dataset:
    """The data set after the treatment of copies that its attribute ``duplicates`` chooses.

    The domains of a data set are searched separately. In data with several images per example, such as pairs, an
    example is a copy if all its images are copies. Data without images and private data are returned unchanged.

    Raises:
        UserError: no training examples are left.
    """
    images = {name: one for name, one in data.spec.items() if isinstance(one, Image)}
    if data.duplicates == "keep" or data.private or not images:
        return data
    if data.streams:
        return replace(data, copies=("not searched for, because the data are streamed",))
    lines: list[str] = []
    superfluous = False
    kept = {domain: np.ones(part.size, bool) for domain, part in data.domains.items()}
    for domain in kept:
        named = {name: one for name, one in images.items() if data.domain(name) == domain}
        if not named:
            continue
        found, size = _cached(data, named), kept[domain].size
        if data.duplicates == "drop":
            kept[domain] = ~_superfluous(found, size)
            remaining = (found.pairs >= size).all(1)  # held-out images are never dropped
            found = Copies(found.pairs[remaining], found.exact[remaining])
        else:
            superfluous |= bool(_superfluous(found, size).any())
        lines += [f"{domain}: {line}" if domain else line for line in _lines(found, size, _labels(data, domain))]
    data = replace(data, copies=(*lines, _ADVICE) if superfluous else tuple(lines))
    return data if all(part.all() for part in kept.values()) else _reduced(data, kept)


def _labels(data: Dataset, domain: str) -> np.ndarray | None:
    """The labels of the training examples of a domain, followed by the labels of its held-out examples."""
    name = next((one for one in (f"label_{domain}", "label") if one in data.spec), None)
    if name is None or data.domain(name) != domain:
        return None
    parts = [data.arrays[name]] + ([data.held_out[name]] if data.held_out and name in data.held_out else [])
    return np.concatenate(parts)


def _reduced(data: Dataset, kept: Mapping[str, np.ndarray]) -> Dataset:
    """The data set with the training examples of each domain for which ``kept`` is true."""
    for domain, rows in kept.items():
        if not rows.any():
            raise UserError(
                f"dataset.duplicates=drop: every training image of {data.name}{domain and f', domain {domain},'} "
                "is a copy of a held-out image, so no training images are left. Set dataset.duplicates=warn, which "
                "names the copies."
            )
    dropped = sum(int((~rows).sum()) for rows in kept.values())
    return replace(
        data,
        examples={name: array[kept[data.domain(name)]] for name, array in data.arrays.items()},
        passed_over={**data.passed_over, "copies of other images": dropped},
        earlier=(),
    )


def copied(images: np.ndarray, originals: np.ndarray, feature: Image) -> np.ndarray:
    """Which images are copies of originals, exact or near, as booleans ``[n]``.

    Args:
        images: ``[n, *stored_shape]``, e.g. samples.
        originals: ``[m, *stored_shape]``, e.g. training images.
        feature: the feature of both.
    """
    leaders = _leaders(find([_Images(feature, [images, originals])]), len(images))
    of_originals: np.ndarray = leaders >= len(images)
    return of_originals


def _superfluous(found: Copies, size: int) -> np.ndarray:
    """Which of ``size`` training images repeat a held-out image or an earlier training image, ``[size]``."""
    leaders = _leaders(found, size)
    superfluous = np.ones(size, bool)
    superfluous[np.unique(leaders, return_index=True)[1]] = False
    return superfluous | (leaders >= size)


def _leaders(found: Copies, size: int) -> np.ndarray:
    """For each of the first ``size`` images, the largest index among its copies and their copies, ``[size]``."""
    parent = list(range(max(size, int(found.pairs.max(initial=-1)) + 1)))

    def first(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in found.pairs.tolist():
        low, high = sorted((first(one), first(other)))
        parent[low] = high
    return np.array([first(i) for i in range(size)], int)


def _lines(found: Copies, size: int, labels: np.ndarray | None) -> Iterator[str]:
    """Yields a line for each kind of copies. Indices of ``size`` and more belong to held-out images."""
    for held_out, exact in itertools.product(range(3), (True, False)):  # the number of held-out images in a pair
        of_kind = found.exact == exact
        within = (found.pairs >= size).sum(1)
        pairs = found.pairs[of_kind & (within == held_out)]
        pairs = pairs[np.unique(pairs[:, 1], return_index=True)[1]]
        if not len(pairs):
            continue
        subject = "held-out" if held_out else "training"
        original = ("another training image", "a training image", "another held-out image")[held_out]
        plural, verb = ("image", "is") if len(pairs) == 1 else ("images", "are")
        relation = "equal to" if exact else "nearly equal to"
        other = (
            0
            if labels is None or len(labels) <= pairs.max()
            else int((labels[pairs[:, 0]] != labels[pairs[:, 1]]).sum())
        )
        differing = f", {other:,} of them with another label" if other else ""
        examples = ", ".join(
            f"{'held-out ' if held_out else ''}{late - size * bool(held_out)} = "
            f"{('', 'training ', 'held-out ')[held_out]}{early - size * (held_out == 2)}"
            for early, late in pairs[:_SHOWN].tolist()
        )
        yield f"{len(pairs):,} {subject} {plural} {verb} {relation} {original}{differing}, e.g. number {examples}"


def _cached(data: Dataset, images: Mapping[str, Image]) -> Copies:
    """The copies among the training and held-out images of one domain, from the cache if there are many images."""
    parts: list[list[np.ndarray]] = []
    for name in images:
        held_out = data.held_out[name] if data.held_out and name in data.held_out else None
        parts.append([data.arrays[name]] + ([] if held_out is None else [held_out]))
    features = list(images.values())

    def make() -> dict[str, np.ndarray]:
        return find([_Images(feature, part) for feature, part in zip(features, parts, strict=True)])._asdict()

    if sum(map(len, parts[0])) < _CACHED:
        return Copies(**make())
    digest = hashlib.sha256(_SOURCE + repr(features).encode())
    for part in parts:
        for array in part:
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return Copies(**cache.arrays("duplicates", digest.hexdigest(), make))


class _Images:
    """Images in several arrays, with the values 0 to 255 as float32, whatever the number of bits.

    Args:
        feature: the feature of the images.
        parts: arrays ``[n, *stored_shape]`` or ``[n, *shape]``.
    """

    def __init__(self, feature: Image, parts: Sequence[np.ndarray]):
        self._feature, self._parts = feature, [np.asarray(part) for part in parts]
        self._starts = np.cumsum([0, *map(len, parts)])
        self.shape = feature.shape

    def __len__(self) -> int:
        return int(self._starts[-1])

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """The images in ``rows`` without their margins."""
        found = np.empty((len(rows), *self.shape), self._feature.dtype)
        for start, part in zip(self._starts, self._parts, strict=False):
            at = (rows >= start) & (rows < start + len(part))
            found[at] = self._feature.centre(part[rows[at] - start])
        return found

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.stored(rows).astype(np.float32) * np.float32(255 / (2**self._feature.bits - 1))

    def digests(self) -> Iterator[bytes]:
        """Yields a digest of each image."""
        for block in _blocks(np.arange(len(self)), _BLOCK):
            for image in self.stored(block):
                yield hashlib.blake2b(image.data, digest_size=16).digest()


def find(images: Sequence[_Images]) -> Copies:
    """The copies among examples of one or more images each.

    Args:
        images: for each image of an example, the images of all examples. An example is a copy of another if all its
            images are.
    """
    first: dict[bytes, int] = {}
    equal: list[tuple[int, int]] = []
    for i, digests in enumerate(zip(*(one.digests() for one in images), strict=True)):
        earliest = first.setdefault(b"".join(digests), i)
        if earliest != i:
            equal.append((earliest, i))
    rows = np.fromiter(first.values(), int, len(first))
    near = _near(images, rows) if min(min(one.shape[:2]) for one in images) >= 6 else np.empty((0, 2), int)
    pairs = np.concatenate([np.array(equal, int).reshape(-1, 2), near])
    return Copies(pairs, np.arange(len(pairs)) < len(equal))


def _near(images: Sequence[_Images], rows: np.ndarray) -> np.ndarray:
    """The pairs of near copies among different examples, indices ``[p, 2]``.

    Args:
        images: as for ``find``.
        rows: the indices of the examples to compare, in ascending order.
    """
    described = [_described(images[0][block]) for block in _blocks(rows, _BLOCK)]
    spectra, coarse = (np.concatenate(parts) for parts in zip(*described, strict=True))
    one, other = _candidates(spectra)
    found = []
    for mirrored in (False, True):
        compared = coarse[:, :, ::-1] if mirrored else coarse
        alike = np.concatenate(
            [
                np.einsum("nhw,nhw->n", coarse[a], compared[b]) > _COARSE
                for a, b in zip(_blocks(one, _BLOCK * 8), _blocks(other, _BLOCK * 8), strict=True)
            ]
            or [np.zeros(0, bool)]
        )
        a, b = rows[one[alike]], rows[other[alike]]
        for part in images:
            size = max(_CELLS // math.prod(part.shape), 1)
            same = [
                _same(part[x], part[y][:, :, ::-1] if mirrored else part[y])
                for x, y in zip(_blocks(a, size), _blocks(b, size), strict=True)
            ]
            copied = np.concatenate(same) if same else np.zeros(0, bool)
            a, b = a[copied], b[copied]
        found.append(np.stack([np.minimum(a, b), np.maximum(a, b)], 1))
    return np.unique(np.concatenate(found), axis=0)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _boxes(images: np.ndarray, side: int) -> np.ndarray:
    """Images ``[n, h, w, c]``, without the rows and columns that do not fill a box, as means of boxes."""
    if side == 1:
        return images
    n, height, width, channels = images.shape
    down, across = height // side, width // side
    top, left = (height - down * side) // 2, (width - across * side) // 2
    images = images[:, top : top + down * side, left : left + across * side]
    means: np.ndarray = images.reshape(n, down, side, across, side, channels).mean((2, 4))
    return means


def _described(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pair: the descriptions of images ``[n, h, w, c]``, and the images in 6x6 pixels.

    A description is the amplitude spectrum of the brightness under a Hann window, averaged over the image and its
    mirror image, and divided by its norm. The square root of the frequency is its weight, as natural images have a
    spectrum that falls with the frequency.
    """
    grey = _boxes(_brightness(images)[..., None], max(min(images.shape[1:3]) // 24, 1))[..., 0]
    height, width = grey.shape[1:]
    window = np.outer(_hann(height), _hann(width))
    grey = grey - np.einsum("nhw,hw->n", grey, window / window.sum())[:, None, None]
    k = min(_FREQUENCIES, min(height, width) // 2 - 1)
    down, across = _waves(height, k), _waves(width, k)
    both = np.concatenate([down, down.conj()], 1)
    amplitudes = np.abs(both.T @ ((grey * window) @ across)) / np.sqrt((window**2).sum())
    spectra = np.sqrt((amplitudes[:, : k + 1] ** 2 + amplitudes[:, k + 1 :] ** 2) / 2)
    u = np.arange(k + 1)
    weights = (u[:, None] ** 2 + u**2) ** 0.25
    weights[0] /= math.sqrt(2)  # only half of all frequencies with u = 0 or v = 0 are distinct
    weights[:, 0] /= math.sqrt(2)
    spectra = (spectra * weights).reshape(len(grey), -1)
    coarse = _bumps(height).T @ grey @ _bumps(width)
    coarse -= coarse.mean((1, 2), keepdims=True)
    return _unit(spectra, _FLOOR * float(np.sqrt((weights**2).sum()))), _unit(coarse, 1e-3)


def _brightness(images: np.ndarray) -> np.ndarray:
    """The brightness ``[n, h, w]`` of images: the luma of RGB and RGBA, or the mean over other channels."""
    if images.shape[-1] in (3, 4):
        luma: np.ndarray = images[..., :3] @ _LUMA
        return luma
    mean: np.ndarray = images.mean(3)
    return mean


def _bumps(n: int) -> np.ndarray:
    """Six overlapping weights ``[n, 6]`` along a side of ``n`` pixels, without the first and the last pixel."""
    centres, places = (np.arange(6) + 0.5) / 6, (np.arange(n) + 0.5) / n
    weights = np.maximum(1 - 4 * np.abs(places[:, None] - centres), 0)
    weights[[0, -1]] = 0
    bumps: np.ndarray = (weights / weights.sum(0)).astype(np.float32)
    return bumps


def _hann(n: int) -> np.ndarray:
    window: np.ndarray = np.sin(np.pi * (np.arange(n, dtype=np.float32) + 0.5) / n) ** 2
    return window


def _waves(n: int, k: int) -> np.ndarray:
    """The complex waves of 0 to ``k`` periods, ``[n, k + 1]``."""
    waves: np.ndarray = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(k + 1)) / n).astype(np.complex64)
    return waves


def _unit(x: np.ndarray, noise: float) -> np.ndarray:
    """Arrays ``[n, ...]`` divided by their norms, to which the norm of noise is added."""
    squared = (x.astype(np.float32) ** 2).sum(tuple(range(1, x.ndim)), keepdims=True)
    divided: np.ndarray = (x / np.sqrt(squared + noise**2)).astype(np.float32)
    return divided


def _candidates(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays of the pairs of descriptions ``[n, f]`` with a distance of at most ``_REACH``."""
    x = spectra - spectra.mean(0)
    x = x @ np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :_COMPONENTS]  # no distance grows in a projection
    order = np.argsort(x[:, 0])
    x = x[order]
    half, one = (x**2).sum(1, keepdims=True) / 2, np.ones((len(x), 1), np.float32)
    left, right = np.concatenate([x, -half, -one], 1), np.concatenate([x, one, half], 1)
    found, size = [], max(_CELLS // len(x), 16)
    for start in range(0, len(x), size):
        # In the order of the first component, only the next rows can be near.
        end = int(np.searchsorted(x[:, 0], x[min(start + size, len(x)) - 1, 0] + _REACH, "right"))
        products = left[start : start + size] @ right[start:end].T  # minus half the squared distances
        a, b = np.nonzero(products > -(_REACH**2) / 2)
        later = b > a
        a, b = a[later], b[later]
        found.append((products[a, b], a + start, b + start))
    products, a, b = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if len(a) > _MOST * len(x):
        nearest = np.argpartition(-products, _MOST * len(x))[: _MOST * len(x)]
        a, b = a[nearest], b[nearest]
    return order[a], order[b]


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether images ``[n, h, w, c]`` are equal up to a shift of one pixel, brightness, contrast and noise."""
    (a, colours), (b, other_colours) = _parted(a), _parted(b)
    side = min(a.shape[1:3])
    middle = _centred(_inner(a, 0, 0, max(side // 48, 1)))
    contrast, same = (middle**2).mean((1, 2, 3)), np.zeros(len(a), bool)
    for y, x in itertools.product((0, -1, 1), repeat=2):
        shifted = _centred(_inner(b, y, x, max(side // 48, 1)))
        variance, product = (shifted**2).mean((1, 2, 3)), (middle * shifted).mean((1, 2, 3))
        # The best change of brightness and contrast leaves this share of the variance.
        rest = 1 - np.maximum(product, 0) ** 2 / np.maximum(contrast * variance, 1e-6)
        larger = np.sqrt(np.maximum(contrast, variance))
        deviation = np.sqrt(np.maximum(rest, 0)) * larger
        fits = deviation <= np.minimum(_NOISE + _SHARE * larger, _RELATIVE * larger)
        if colours is not None and other_colours is not None:
            cells = max(side // 8, 1)
            difference = _inner(colours, 0, 0, cells) - _inner(other_colours, y, x, cells)
            fits &= np.sqrt((difference**2).mean((1, 2, 3))) <= _COLOURS
        same |= fits
    return same


def _centred(images: np.ndarray) -> np.ndarray:
    centred: np.ndarray = images - images.mean((1, 2, 3), keepdims=True)
    return centred


def _parted(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """A pair: the channels that are compared in full resolution, and the colours, which JPEG makes coarse."""
    if images.shape[-1] not in (3, 4):
        return images, None
    luma = _brightness(images)[..., None]
    return np.concatenate([luma, images[..., 3:]], -1), images[..., :3] - luma


def _inner(images: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    """Images without a border of one pixel, shifted by (y, x), as means of boxes."""
    height, width = images.shape[1:3]
    return _boxes(images[:, 1 + y : height - 1 + y, 1 + x : width - 1 + x], side)
