"""The view of each kind of feature: how its examples are drawn.

``view`` chooses by the class of the feature. A module that defines a kind of feature registers its view with
``view.register``. Kinds without a view of their own are drawn as a matrix of values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from gan_cli.data import features
from gan_cli.data.series.feature import Series
from gan_cli.data.tables import constraints
from gan_cli.data.tables.feature import Table
from gan_cli.data.text.feature import Tokens
from gan_cli.data.video.feature import Video
from gan_cli.storage import files, marks
from gan_cli.storage.marks import Origin
from gan_cli.trained.sampling import TaskRunner
from gan_cli.types import Feature
from gan_cli.views import POINTS, SIDE, clips, paths, pictures, series_charts, tables, texts

_ROWS = 1000  # number of generated rows of a table that training writes and draws
_CHARTED = 50  # of fewer windows, pictures show the paths alone


@dataclass(frozen=True)
class View:
    """How the examples of a kind of feature are drawn. All functions take examples as networks see them.

    Attributes:
        noun: the plural of what a picture shows, e.g. "images".
        count: the number of examples that a picture shows.
        picture: ``(samples, real) -> picture`` of samples, over real examples if ``behind`` is not 0.
        compared: ``(real, samples) -> picture`` of real examples and of samples, e.g. one half each.
        rows: ``(parts, kinds) -> (picture, labels)`` of several arrays of examples, e.g. of inputs and of outputs
            below them. ``kinds`` describes each array, and ``labels`` each row of the picture, from top to bottom.
            ``labels`` is empty if the arrays have no rows of their own.
        in_rows: ``(number of arrays) -> number of examples of each array`` that a picture of ``rows`` should show.
        behind: the number of real examples that ``picture`` draws behind the samples.
        real: ``(real examples) -> picture`` of real examples alone. None if ``picture`` shows them as samples.
        write: ``(path, samples, origin)``, writes the samples to a file beside the picture ``path``, with a
            provenance mark that states the origin, or None.
        write_summary: ``(path, samples, real)``, writes a description of the samples and of the real examples
            behind them beside the picture ``path``, or None.
        animation: ``(examples) -> content`` of a GIF file beside a picture of samples or of real examples, or None.
        one: ``(stored example, software) -> (suffix, content)`` of a file with a single example, where ``software``
            is the name of the program in the file's metadata. None if there is no such file. ``gan-sample`` then
            writes no folder of pictures, and draws no rows and walks of single examples.
    """

    noun: str
    count: int
    picture: Callable[[np.ndarray, np.ndarray | None], Image.Image]
    compared: Callable[[np.ndarray, np.ndarray], Image.Image]
    rows: Callable[[Sequence[np.ndarray], Sequence[str]], tuple[Image.Image, list[str]]]
    in_rows: Callable[[int], int]
    behind: int = 0
    real: Callable[[np.ndarray], Image.Image] | None = None
    write: Callable[[Path, np.ndarray, Origin | None], None] | None = None
    write_summary: Callable[[Path, np.ndarray, np.ndarray | None], None] | None = None
    animation: Callable[[np.ndarray], bytes] | None = None
    one: Callable[[np.ndarray, str], tuple[str, bytes]] | None = None


@functools.singledispatch
def view(feature: Feature) -> View:
    """The view of a feature. By default, each example is a row of a matrix, and brighter means larger."""

    def matrix(samples: np.ndarray, real: np.ndarray | None = None) -> Image.Image:
        return pictures.matrix(samples.reshape(len(samples), -1))

    return View(
        noun=feature.noun,
        count=SIDE**2,
        picture=matrix,
        compared=lambda real, samples: matrix(np.concatenate([real, samples])),
        rows=lambda parts, kinds: (matrix(np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])), []),
        in_rows=lambda parts: max(SIDE**2 // parts, 1),
    )


@view.register
def _(feature: features.Image) -> View:
    def rows(parts: Sequence[np.ndarray], kinds: Sequence[str]) -> tuple[Image.Image, list[str]]:
        n, height, width = parts[0].shape[:3]
        return pictures.rows(parts), pictures.row_labels(height, width, n, kinds)

    return View(
        noun="images",
        count=SIDE**2,
        picture=lambda samples, real: pictures.grid(samples),
        compared=lambda real, samples: pictures.grid(np.concatenate([real, samples])),
        rows=rows,
        in_rows=lambda parts: pictures.shown_in_rows(feature.height, feature.width, parts),
        one=pictures.file_of,
    )


@view.register
def _(feature: features.Vector) -> View:
    def scatter(samples: np.ndarray, real: np.ndarray | None) -> Image.Image:
        return pictures.scatter(samples, samples if real is None else real)

    return View(
        noun="points",
        count=POINTS,
        picture=scatter,
        compared=lambda real, samples: pictures.scatter(samples, real),
        rows=lambda parts, kinds: (pictures.scatter(parts[1], parts[0]), []),
        in_rows=lambda parts: POINTS // 2,
        behind=POINTS,
        write=lambda path, samples, origin: marks.write_arrays(
            path.with_suffix(".npz"), {"samples": samples}, origin
        ),
    )


@view.register
def _(feature: Table) -> View:
    def summary(samples: np.ndarray | None, real: np.ndarray | None) -> tables.Summary:
        values = (None if x is None else feature.values(x) for x in (real, samples))
        return tables.summary(feature, *values)

    def chart(samples: np.ndarray | None, real: np.ndarray | None) -> Image.Image:
        return tables.chart(summary(samples, real))

    def write(path: Path, samples: np.ndarray, origin: Origin | None) -> None:
        from gan_cli.data.tables import files as table_files  # not above, because it loads PyArrow

        rows = constraints.valid(feature, feature.values(samples))
        table_files.write(path.with_suffix(".csv"), feature, rows, origin)

    def write_summary(path: Path, samples: np.ndarray, real: np.ndarray | None) -> None:
        found = summary(samples, real) | {"step": files.number(path.stem)}
        files.write_json(path.with_name(tables.SUMMARY), found)

    return View(
        noun="rows",
        count=_ROWS,
        picture=chart,
        compared=lambda real, samples: chart(samples, real),
        rows=lambda parts, kinds: (chart(parts[1], parts[0]), []),
        in_rows=lambda parts: _ROWS,
        behind=tables.ROWS,
        real=lambda real: chart(None, real),
        write=write,
        write_summary=write_summary,
    )


@view.register
def _(feature: Series) -> View:
    def picture(samples: np.ndarray, real: np.ndarray | None) -> Image.Image:
        if len(samples) < _CHARTED or feature.length < 2:
            return paths.paths([samples] if real is None or real is samples else [real, samples])
        made = np.asarray(feature.decode(jnp.asarray(samples)))
        kept = made if real is samples else None if real is None else np.asarray(feature.decode(jnp.asarray(real)))
        return series_charts.charts(made, kept, feature.names, feature.returns)

    return View(
        noun="windows",
        count=series_charts.COUNT,
        picture=picture,
        compared=lambda real, samples: paths.paths([real[: paths.COUNT], samples[: paths.COUNT]]),
        rows=lambda parts, kinds: (paths.pairs(parts), []),
        in_rows=lambda parts: paths.COUNT,
        behind=series_charts.COUNT,
    )


@view.register
def _(feature: Video) -> View:
    return View(
        noun="clips",
        count=clips.COUNT,
        picture=lambda samples, real: clips.strip(samples[:SIDE]),
        compared=lambda real, samples: clips.strip(np.concatenate([real[: SIDE // 2], samples[: SIDE // 2]])),
        rows=clips.rows,
        in_rows=clips.in_rows,
        animation=clips.animation,
    )


@view.register
def _(feature: Tokens) -> View:
    several_lines = texts.has_lines(feature.vocabulary)

    def page(samples: np.ndarray, real: np.ndarray | None = None) -> Image.Image:
        return texts.page(feature.texts(samples), several_lines)

    def rows(parts: Sequence[np.ndarray], kinds: Sequence[str]) -> tuple[Image.Image, list[str]]:
        return page(np.stack(parts, axis=1).reshape(-1, feature.length)), []

    def write(path: Path, samples: np.ndarray, origin: Origin | None) -> None:
        written = texts.content(feature.texts(samples), several_lines)
        marks.write(path.with_suffix(".txt"), written.encode(), origin)

    return View(
        noun=feature.noun,
        count=texts.COUNT,
        picture=page,
        compared=lambda real, samples: page(np.concatenate([real, samples])),
        rows=rows,
        in_rows=lambda parts: max(texts.COUNT // parts, 1),
        write=write,
    )


def kinds(runner: TaskRunner, target: bool = False) -> list[str]:
    """The kinds of the rows in a picture of a task: the input, the outputs, and the target.

    Args:
        runner: runs the task, whose inputs and outputs are ``pictured``.
        target: whether the last row shows the true examples that the main output imitates.
    """
    _, *made = runner.pictured
    outputs = ["output" if name == runner.main else name for name in made]
    return ["input", *outputs, *(["target"] if target else [])]


def write_neighbours(
    folder: Path, feature: Feature, samples: np.ndarray, neighbours: np.ndarray, origin: Origin
) -> None:
    """Write the picture ``neighbours.png``, which shows each sample with its nearest training example.

    Args:
        folder: the folder for the picture.
        feature: the feature of the samples.
        samples: stored samples ``[n, *stored_shape]``.
        neighbours: the nearest training example of each sample, of the same shape.
        origin: the origin of the samples.
    """
    parts = [np.asarray(feature.encode(examples)) for examples in (samples, neighbours)]
    picture, _ = view(feature).rows(parts, ("sample", "nearest"))
    pictures.write(folder / "neighbours.png", picture, replace(origin, mixed=True))
