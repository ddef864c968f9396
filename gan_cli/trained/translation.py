"""Runs tasks on images of any size, which the networks of image translation accept (``Task.multiple``).

Images that fit into memory are processed whole, and larger ones in tiles (``gan_cli.trained.tiles``).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import BATCH
from gan_cli.data.features import Image
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.trained import tiles
from gan_cli.trained.sampling import PIXELS, Arrays, TaskRunner
from gan_cli.types import Feature

SMALLEST = 8  # the smallest side after padding, because networks reflect the borders of reduced images
_WAITING = 2**24  # the largest number of pixels of the images that wait for other images of their size


def stored(
    runner: TaskRunner, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int, first: int = 0
) -> Iterator[Arrays]:
    """Yields batches of the outputs of a task in the format of files, like ``TaskRunner.stored``.

    If the task accepts images of any size, the images in ``inputs`` may have another size than their features.
    Images whose sides are no multiples of ``Task.multiple`` are padded by reflection, and the outputs are cropped.

    Args:
        runner: runs the task.
        state: the training state.
        inputs: the inputs of the task by name, ``[n, ...]``, in the format of files. All images have the same size.
        seed: seed of the random numbers of the task.
        first: number of the first row, which determines the random numbers of the rows.

    Raises:
        UserError: the images do not fit into memory, not even in tiles.
    """
    if runner.task.multiple is None:
        for part in runner.stored(state, inputs, seed, first):
            yield {name: np.asarray(x) for name, x in part.items()}
        return
    n = len(next(iter(inputs.values())))
    size = min(_rows(runner, state, _padded_size(runner, *_size(runner, inputs))) or 1, n)
    for start in range(0, n, size):
        rows = np.arange(start, min(start + size, n))
        batch = {name: x[rows] for name, x in inputs.items()}
        try:
            yield _translated(runner, state, batch, seed, first + rows, size)
        except UserError as error:
            raise UserError(f"--input: {error}") from error


class _Waiting(NamedTuple):
    """An image that waits for other images of its size: its number, and the image, ``[h, w, c]``."""

    number: int
    image: np.ndarray


def translated(
    runner: TaskRunner,
    state: TrainState,
    images: Iterable[np.ndarray],
    others: Callable[[int], Arrays],
    seed: int,
) -> Iterator[tuple[int, Arrays | UserError]]:
    """Runs a task with one input of images on images of different sizes. Images of equal size share a call.

    Args:
        runner: runs the task.
        state: the training state.
        images: the images ``[h, w, c]`` in the format of files.
        others: function that returns the other inputs of the task for the image of a number, ``[1, ...]``.
        seed: seed of the random numbers of the task. Those of an image depend on its number too.

    Yields:
        Pairs of the number of an image, counted from 0, and the outputs by name, each ``[h, w, c]``. A UserError
        takes the place of the outputs if an image is too large. The pairs of different sizes are in any order.
    """
    waiting: dict[tuple[int, ...], list[_Waiting]] = {}
    full: set[tuple[int, ...]] = set()  # the sizes of which a call with all rows has been compiled
    (name,) = runner.given

    def most(shape: tuple[int, ...]) -> int:
        return _rows(runner, state, _padded_size(runner, *shape[:2])) or 1

    def run(shape: tuple[int, ...]) -> Iterator[tuple[int, Arrays | UserError]]:
        queue = waiting.pop(shape)
        rows = most(shape)
        full.update([shape] if len(queue) == rows else [])
        numbers = np.array([one.number for one in queue])
        each = [{name: one.image[None]} | others(one.number) for one in queue]
        batch = {key: np.concatenate([one[key] for one in each]) for key in runner.task.inputs}
        try:
            outputs = _translated(runner, state, batch, seed, numbers, rows if shape in full else len(queue))
        except UserError as error:
            yield from ((number, error) for number in numbers.tolist())
            return
        for i, number in enumerate(numbers.tolist()):
            yield number, {key: x[i] for key, x in outputs.items()}

    for number, image in enumerate(images):
        waiting.setdefault(image.shape, []).append(_Waiting(number, image))
        if len(waiting[image.shape]) == most(image.shape):
            yield from run(image.shape)
        while sum(len(queue) * shape[0] * shape[1] for shape, queue in waiting.items()) > _WAITING:
            yield from run(max(waiting, key=lambda shape: len(waiting[shape]) * shape[0] * shape[1]))
    for shape in list(waiting):
        yield from run(shape)


def padded(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images ``[n, h, w, c]`` with height and width increased by reflection, half of it at each side."""
    down, across = height - images.shape[1], width - images.shape[2]
    sides = [(0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)]
    return np.pad(images, sides, mode="reflect") if down or across else images


def unpadded(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The inverse of ``padded`` for images ``[n, H, W, c]``."""
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _translated(
    runner: TaskRunner,
    state: TrainState,
    inputs: Mapping[str, np.ndarray],
    seed: int,
    numbers: np.ndarray,
    rows: int,
) -> Arrays:
    """The outputs of a task for images of one size, in the format of files.

    Args:
        rows: number of rows of the call. Repeated rows fill it up, because JAX compiles each number of rows anew.
            Images that have to be divided into tiles have one row.
    """
    height, width = _size(runner, inputs)
    encoded = {}
    for name, x in inputs.items():
        feature = runner.task.inputs[name]
        made = np.asarray(feature.encode(x))
        encoded[name] = padded(made, *_padded_size(runner, height, width)) if _is_image(feature) else made
    found: Mapping[str, np.ndarray | jax.Array]
    if _rows(runner, state, _padded_size(runner, height, width)) == 0:
        (number,) = numbers.tolist()
        found = tiles.translate(runner, state, encoded, seed, number)
    else:
        filled = np.arange(rows) % len(numbers)
        found = runner.apply(state, {name: x[filled] for name, x in encoded.items()}, seed, numbers[filled])
    outputs = {}
    for name, feature in runner.task.outputs.items():
        x = np.asarray(feature.decode(jnp.asarray(found[name][: len(numbers)])))
        outputs[name] = unpadded(x, height, width) if _is_image(feature) else x
    return outputs


# The number of images that fit into memory, for each runner by height and width of the images and memory.
_FIT: weakref.WeakKeyDictionary[TaskRunner, dict[tuple[int, int, int], int]] = weakref.WeakKeyDictionary()


def _rows(runner: TaskRunner, state: TrainState, size: tuple[int, int]) -> int:
    """Number of images of a size in one call, or 0 if an image has to be divided into tiles."""
    fit, key = _FIT.setdefault(runner, {}), (*size, tiles.memory_limit())
    if key not in fit:
        fit[key] = tiles.rows_that_fit(runner, state, *size)
    return min(max(PIXELS // (size[0] * size[1]), 1), BATCH, fit[key])


def _padded_size(runner: TaskRunner, height: int, width: int) -> tuple[int, int]:
    multiple = runner.task.multiple or 1
    height, width = (-(-max(side, SMALLEST) // multiple) * multiple for side in (height, width))
    return height, width


def _size(runner: TaskRunner, inputs: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Height and width of the images in the inputs of a task."""
    return next(x.shape[1:3] for name, x in inputs.items() if _is_image(runner.task.inputs[name]))


def _is_image(feature: Feature) -> bool:
    return isinstance(feature, Image)
