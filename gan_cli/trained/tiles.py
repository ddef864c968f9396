"""Translates images that do not fit into memory in tiles, with the statistics of the whole image.

A fully convolutional network computes a pixel from the pixels within its reach, and from the statistics of its
normalisation layers, which depend on the whole image. With these statistics fixed, the inner part of a tile
therefore equals the same part of the whole image, up to rounding. The statistics are computed layer by layer: the
statistics of layer k from all tiles, with the statistics of the layers before k fixed. An image of t tiles takes
t * (k + 1) calls for a network of k normalisation layers.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from gan_cli.data.capacity import available_memory
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.models import windows
from gan_cli.trained.sampling import TaskRunner, averaged
from gan_cli.types import Task

Moments = tuple[jax.Array, jax.Array]  # mean and variance ``[c]`` of the input of a normalisation layer


def memory_limit() -> int:
    """Bytes that the intermediate results of one call may take: half of ``available_memory()``."""
    return available_memory() // 2


def rows_that_fit(runner: TaskRunner, state: TrainState, height: int, width: int) -> int:
    """The number of images that fit into one call of a task. 0 if not even one image fits.

    Args:
        runner: the runner of a task that accepts images of any size.
        state: the training state.
        height: height of the images, a multiple of ``runner.task.multiple``.
        width: width of the images, likewise.
    """
    inputs = _shapes(runner, height, width)
    numbers = jax.ShapeDtypeStruct((1,), jnp.uint32)

    def whole(state: TrainState, inputs: Any, numbers: Any) -> Any:
        return runner.task.apply(*averaged(state), inputs, jax.vmap(jax.random.key)(numbers))

    # The sum of all intermediate results exceeds their memory, and needs no compilation.
    most = memory_limit()
    needed = _sum_of_results(whole, state, inputs, numbers)
    if needed > most:
        needed = _bytes_of(whole, state, inputs, numbers)
    return most // needed


def translate(
    runner: TaskRunner, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int, number: int
) -> dict[str, np.ndarray]:
    """The outputs of a task for one image, computed in tiles that fit into ``memory_limit()``.

    Up to rounding, they equal the outputs for the whole image, including the random mask of dropout.

    Args:
        runner: the runner of a task that accepts images of any size.
        state: the training state.
        inputs: the inputs by name, ``[1, ...]``, as networks see them. The height and the width of images are
            multiples of ``runner.task.multiple``.
        seed: seed of the random numbers of the task.
        number: number of the row, which determines its random numbers.

    Returns:
        The outputs by name, ``[1, h, w, c]``, as networks see them.

    Raises:
        UserError: the smallest possible tile does not fit. The message names the largest image that fits.
    """
    height, width = next(x.shape[1:3] for x in inputs.values() if x.ndim == 4)
    size = (height, width, memory_limit())
    layouts = _LAYOUTS.setdefault(runner, {})
    if size not in layouts:
        layouts[size] = _layout(runner, state, *size)
    layout, function = layouts[size]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(np.uint32(seed)), np.uint32(number)), 1)

    def run(statistics: list[Moments], tile: Tile) -> Any:
        rows, columns = slice(tile.top, tile.top + layout.height), slice(tile.left, tile.left + layout.width)
        part = {name: x[:, rows, columns] if x.ndim == 4 else x for name, x in inputs.items()}
        place = np.array([tile.top, tile.left, *tile.inside], np.int32)
        return function(state, part, key, statistics, place)

    statistics: list[Moments] = []
    for _ in range(layout.statistics):
        parts = [jax.device_get(run(statistics, tile)) for tile in layout.tiles]
        statistics.append(_merged(parts))
    outputs: dict[str, np.ndarray] = {}
    for tile in layout.tiles:
        top, bottom, left, right = tile.inside
        for name, made in jax.device_get(run(statistics, tile)).items():
            if name not in outputs:
                outputs[name] = np.empty((1, height, width, made.shape[-1]), made.dtype)
            rows, columns = slice(tile.top + top, tile.top + bottom), slice(tile.left + left, tile.left + right)
            outputs[name][:, rows, columns] = made[:, top:bottom, left:right]
    return outputs


class Tile(NamedTuple):
    """A tile: the row and the column of its first pixel, and the part of the image that is taken from it."""

    top: int
    left: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """First row, end of the rows, first column and end of the columns of the part, counted from the tile."""
        (first, end), (left, right) = self.rows, self.columns
        return first - self.top, end - self.top, left - self.left, right - self.left


class Layout(NamedTuple):
    """The tiles of an image.

    Attributes:
        height: height of every tile.
        width: width of every tile.
        tiles: the tiles. Their parts cover the image without overlap.
        statistics: number of normalisation layers with statistics of the image.
    """

    height: int
    width: int
    tiles: tuple[Tile, ...]
    statistics: int


def axis_tiles(length: int, side: int, overlap: int) -> list[tuple[int, int, int]]:
    """Tiles along one axis: first pixel of the tile, first pixel and end of the part taken from it.

    A part keeps ``overlap`` pixels distance from the borders of its tile, except at the borders of the image.

    Args:
        length: pixels of the image.
        side: pixels of each tile, at most ``length``. If less, it must be more than ``2 * overlap``.
        overlap: pixels at each border of a tile that belong to the part of another tile.
    """
    count = 1 if side == length else -(-(length - 2 * overlap) // (side - 2 * overlap))
    starts = [min(i * (side - 2 * overlap), length - side) for i in range(count)]
    borders = [0, *(start + overlap for start in starts[1:]), length]
    return [(start, borders[i], borders[i + 1]) for i, start in enumerate(starts)]


class _Reached(Exception):
    """Ends the trace of a network at the normalisation layer whose statistics are measured."""


class _Window(windows.Window):
    """The window of a tile.

    Args:
        statistics: mean and variance of the inputs of the first normalisation layers.
        height: height of the tile.
        place: row and column of the tile's first pixel, then the part of the tile in the form of ``Tile.inside``.
    """

    def __init__(self, statistics: Sequence[Moments], height: int, place: jax.Array):
        self._statistics, self._height, self._place = statistics, height, place
        self._count = 0
        self.measured: tuple[jax.Array, ...] | None = None

    def moments(self, x: jax.Array) -> Moments:
        self._count += 1
        if self._count <= len(self._statistics):
            return self._statistics[self._count - 1]
        ratio = self._height // x.shape[1]
        top, bottom, left, right = self._place[2:] // ratio
        rows, columns = jnp.arange(x.shape[1]), jnp.arange(x.shape[2])
        inside = ((rows >= top) & (rows < bottom))[:, None] & (columns >= left) & (columns < right)
        wide, inside = x[0].astype(jnp.float32), inside[:, :, None]
        count = inside.sum()
        mean = jnp.where(inside, wide, 0).sum((0, 1)) / count
        squares = jnp.where(inside, jnp.square(wide - mean), 0).sum((0, 1))
        self.measured = count, mean, squares
        raise _Reached

    def origin(self, x: jax.Array) -> tuple[jax.Array | int, jax.Array | int]:
        top, left = self._place[:2] // (self._height // x.shape[1])
        return top, left


class _Counter(windows.Window):
    """Records the numbers of channels of all normalisation layers with statistics of the image."""

    def __init__(self) -> None:
        self.channels: list[int] = []

    def moments(self, x: jax.Array) -> Moments:
        self.channels.append(x.shape[-1])
        return jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1])

    def origin(self, x: jax.Array) -> tuple[jax.Array | int, jax.Array | int]:
        return 0, 0


TileFunction = Callable[[TrainState, Any, jax.Array, list[Moments], np.ndarray], Any]


# The layouts and functions of each runner by height and width of the images and memory, for folders of images.
_LAYOUTS: weakref.WeakKeyDictionary[TaskRunner, dict[tuple[int, int, int], tuple[Layout, TileFunction]]] = (
    weakref.WeakKeyDictionary()
)


def _tile_function(task: Task) -> TileFunction:
    """A compiled function of a tile: returns partial statistics, or the outputs of the task.

    It returns the outputs if all statistics are provided. The partial statistics belong to the first
    normalisation layer whose statistics are not provided: the number of pixels, the mean, and the sum of squared
    differences from the mean.
    """

    def run(state: TrainState, inputs: Any, key: jax.Array, statistics: list[Moments], place: jax.Array) -> Any:
        height = next(x.shape[1] for x in inputs.values() if x.ndim == 4)
        window = _Window(statistics, height, place)
        try:
            with windows.active(window):
                return task.apply(*averaged(state), inputs, key[None])
        except _Reached:
            return window.measured

    return jax.jit(run)


def _layout(
    runner: TaskRunner, state: TrainState, height: int, width: int, limit: int
) -> tuple[Layout, TileFunction]:
    """The tiles of an image, as large as memory allows, and the function that processes one.

    Raises:
        UserError: the smallest possible tile does not fit.
    """
    multiple, reach = runner.task.multiple, runner.task.reach
    assert multiple is not None
    overlap = -(-(reach or 0) // multiple) * multiple
    channels = _channels(runner, state, height, width)

    def needed(side_y: int, side_x: int) -> int:
        return _bytes_of_tile(runner, state, (side_y, side_x), channels)

    smallest = (min(2 * overlap + multiple, height), min(2 * overlap + multiple, width))
    least = needed(*smallest)
    if reach is not None and least <= limit:
        sides = _largest_tile(
            smallest, least, limit, needed, lambda area: _sides(height, width, area, overlap, multiple)
        )
        rows, columns = (axis_tiles(n, side, overlap) for n, side in zip((height, width), sides, strict=True))
        tiles = tuple(
            Tile(y, x, (top, bottom), (left, right)) for y, top, bottom in rows for x, left, right in columns
        )
        return Layout(*sides, tiles, len(channels)), _tile_function(runner.task)
    per_pixel = least / math.prod(smallest)
    fits = int(math.sqrt(limit / per_pixel)) // multiple * multiple
    why = (
        "the reach of its network is unknown"
        if reach is None
        else f"each pixel depends on {overlap} pixels in each direction"
    )
    raise UserError(
        f"an image of {height} x {width} pixels does not fit into memory ({limit / 2**30:.1f} GiB), and cannot be "
        f"divided into tiles that fit, because {why}. Images of up to about {fits} x {fits} pixels fit."
    )


def _largest_tile(
    smallest: tuple[int, int],
    least: int,
    limit: int,
    needed: Callable[[int, int], int],
    sides_of: Callable[[float], tuple[int, int]],
) -> tuple[int, int]:
    """The sides of a tile that takes most of the memory, found by linear interpolation.

    Args:
        smallest: sides of the smallest tile, which fits.
        least: bytes that the smallest tile takes.
        limit: bytes that a tile may take.
        needed: function that returns the bytes for the sides of a tile. It compiles the function of a tile.
        sides_of: function that returns the sides of a tile of at most a number of pixels.
    """
    best, start = smallest, math.prod(smallest)
    area, tried = limit / least * start, {smallest}
    for _ in range(5):
        sides = sides_of(area)
        if sides in tried:
            break
        tried.add(sides)
        amount, pixels = needed(*sides), math.prod(sides)
        if amount <= limit and pixels > math.prod(best):
            best = sides
        # A part of the memory, e.g. for transposed kernels, does not depend on the size of the tile.
        per_pixel = max((amount - least) / (pixels - start), 1.0) if pixels > start else least / start
        area = start + 0.95 * (limit - least) / per_pixel
        if amount <= limit and area < 1.3 * pixels:
            break
    return best


def _channels(runner: TaskRunner, state: TrainState, height: int, width: int) -> list[int]:
    """The numbers of channels of all normalisation layers with statistics of the image, in their order."""
    counter = _Counter()
    with windows.active(counter):
        jax.eval_shape(
            lambda state, inputs: runner.task.apply(*averaged(state), inputs, jax.random.key(0)[None]),
            state,
            _shapes(runner, height, width),
        )
    return counter.channels


def _bytes_of_tile(runner: TaskRunner, state: TrainState, tile: tuple[int, int], channels: Sequence[int]) -> int:
    """Bytes that a tile takes, whose normalisation layers have the given numbers of channels."""
    place, key = jax.ShapeDtypeStruct((6,), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    statistics = [(jax.ShapeDtypeStruct((n,), jnp.float32),) * 2 for n in channels]
    return _bytes_of(_tile_function(runner.task), state, _shapes(runner, *tile), key, statistics, place)


def _sides(height: int, width: int, area: float, overlap: int, multiple: int) -> tuple[int, int]:
    """Height and width of tiles with at most ``area`` pixels, or the smallest possible tile.

    Of the sizes that lead to the same number of tiles, the smallest is chosen.
    """

    def side(length: int, budget: float) -> int:
        most = max(int(budget) // multiple * multiple, 2 * overlap + multiple)
        if most >= length:
            return length
        count = -(-(length - 2 * overlap) // (most - 2 * overlap))
        return 2 * overlap + -(-(length - 2 * overlap) // (count * multiple)) * multiple

    side_x = side(width, math.sqrt(area))
    side_y = side(height, area / side_x)
    return side_y, side(width, area / side_y)


def _merged(parts: Sequence[tuple[np.ndarray, ...]]) -> Moments:
    """Mean and variance of a layer over all tiles, from the partial statistics (Chan et al. 1979)."""
    counts, means, squares = (np.stack(column).astype(np.float64) for column in zip(*parts, strict=True))
    weights = counts[:, None] / counts.sum()
    mean = (weights * means).sum(0)
    var = squares.sum(0) / counts.sum() + (weights * np.square(means - mean)).sum(0)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32)


def _shapes(runner: TaskRunner, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of the inputs of a task, as networks see them, with images of a given size."""
    found = {}
    for name, feature in runner.task.inputs.items():
        image = len(feature.shape) == 3
        shape = (1, height, width, feature.shape[-1]) if image else (1, *feature.shape)
        encoded = jax.eval_shape(feature.encode, jax.ShapeDtypeStruct((1, *feature.stored_shape), feature.dtype))
        found[name] = jax.ShapeDtypeStruct(shape, encoded.dtype)
    return found


def _bytes_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes of the intermediate results and outputs of a call, as XLA allocates them."""
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    if analysis is None:  # some back ends have no such analysis
        return _sum_of_results(function, *arguments)
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def _sum_of_results(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes of the results of all operations of a call, including the operations of inner functions."""

    def of(jaxpr: Any) -> int:
        total = 0
        for equation in jaxpr.eqns:
            leaves = [x for value in equation.params.values() for x in jax.tree.leaves(value, is_leaf=_is_jaxpr)]
            inner = [getattr(x, "jaxpr", x) for x in leaves if _is_jaxpr(x)]
            results = [x.aval for x in equation.outvars]
            total += sum(map(of, inner)) or sum(math.prod(x.shape) * x.dtype.itemsize for x in results)
        return total

    return of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
