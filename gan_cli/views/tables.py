"""Charts of tables: the distributions of columns, and the associations of pairs. They show no single rows."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli.views.associations import associations

if TYPE_CHECKING:
    from gan_cli.data.tables.columns import Column
    from gan_cli.data.tables.feature import Table

Columns = Mapping[str, np.ndarray]
Summary = dict[str, Any]
SUMMARY = "columns.json"  # the file with the newest summary of a run, from which the report draws its charts
ROWS = 20_000  # the largest number of training rows of which a chart shows the distribution
_BARS, _BINS = 10, 24  # the most categories, and the number of intervals of numbers, that a chart shows
_OUTSIDE = 0.005  # share of the values below and above the intervals, so that no chart shows an extreme value
_WIDTH, _PANEL, _HEIGHT = 1200, 230, 158  # pixels: the width of a chart, and the least width and height of a panel
_CELL = 6  # pixels: the least side of a cell of a matrix
_SCALE = 2  # charts are drawn larger by this factor and then reduced, so that lines and letters are smooth
_GREY, _ORANGE, _BLUE = (150, 150, 150), (214, 69, 36), (40, 96, 178)
_TEXT, _MUTED, _LINE = (40, 44, 50), (105, 112, 120), (222, 224, 228)


def summary(table: Table, real: Columns | None, generated: Columns | None) -> Summary:
    """The distributions of all columns and the associations of all pairs, as a dictionary for JSON.

    The entry ``columns`` has a dictionary for each column: ``name``, ``labels`` and, for real and generated rows,
    the shares of the bars as ``real`` and ``generated``. The bars are the most frequent categories, or intervals
    of numbers, whose first and last one include all smaller and all larger values. For numbers, ``range`` has
    texts for both ends of the intervals, and ``labels`` has texts for the bars of missing values only. The entry
    ``associations`` has the matrices ``real`` and ``generated``.

    Args:
        table: the feature of the rows.
        real: values of the training rows by column, or None.
        generated: values of the generated rows by column, or None.
    """
    both = {"real": real, "generated": generated}
    there = {name: values for name, values in both.items() if values is not None}
    columns = [
        _bars(column, {name: values[column.name] for name, values in there.items()}) for column in table.columns
    ]
    matrices = {name: _rounded(associations(table.columns, values)) for name, values in there.items()}
    return {"columns": columns, "associations": matrices}


def _rounded(values: np.ndarray) -> list[Any]:
    found: list[Any] = np.round(values, 4).tolist()
    return found


def _bars(column: Column, values: dict[str, np.ndarray]) -> dict[str, Any]:
    first = next(iter(values.values()))
    if column.numeric:
        edges = _edges(column, first)
        shares = {name: _shares_of_numbers(one, edges, column.missing) for name, one in values.items()}
        ends = [_end(column, edges[0]), _end(column, edges[-1])]
        named = {"labels": ["missing"] if column.missing else [], "range": ends}
    else:
        texts = _most_frequent(column, first)
        others = len(column.categories) - len(texts)
        shares = {name: _shares_of_texts(column, one, texts) for name, one in values.items()}
        named = {"labels": [*texts, *([f"{others} others"] if others else []), *(["missing"] * column.missing)]}
    return {"name": column.name, **named, **{name: _rounded(one) for name, one in shares.items()}}


def _edges(column: Column, values: np.ndarray) -> np.ndarray:
    """The edges of the intervals of numbers. Few different integers have an interval each."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.array([0.0, 1.0])
    low, high = np.quantile(known, (_OUTSIDE, 1 - _OUTSIDE), method="closest_observation")
    if column.kind == "integer":
        width = max(math.ceil((high - low + 1) / _BINS), 1)
        return np.arange(low, high + width + 1, width) - 0.5
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _shares_of_numbers(values: np.ndarray, edges: np.ndarray, missing: bool) -> np.ndarray:
    known = values[~np.isnan(values)]
    places = np.clip(np.searchsorted(edges, known, "right") - 1, 0, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    return np.append(counts, [len(values) - len(known)] * missing) / max(len(values), 1)


def _most_frequent(column: Column, values: np.ndarray) -> list[str]:
    """The categories that have bars, the most frequent ones first. All others share a bar."""
    texts, counts = np.unique(values[~column.absent(values)].astype(str), return_counts=True)
    known = [str(texts[i]) for i in np.argsort(-counts, kind="stable")]
    ordered = [*known, *(text for text in column.categories if text not in set(known))]
    return ordered if len(ordered) <= _BARS else ordered[: _BARS - 1]


def _shares_of_texts(column: Column, values: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    known = values[~column.absent(values)]
    counts = [int((known == text).sum()) for text in texts]
    others, missing = len(column.categories) > len(texts), column.missing
    rest = [len(known) - sum(counts)] * others + [len(values) - len(known)] * missing
    return np.array([*counts, *rest]) / max(len(values), 1)


def _end(column: Column, value: float) -> str:
    if column.kind == "date":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d")
    value = math.ceil(value) if column.kind == "integer" else value
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def is_summary(value: Any) -> bool:
    """Whether a value that was read from a file has the structure of a ``summary`` of real and generated rows."""
    try:
        count = len(value["columns"])
        for column in value["columns"]:
            bars = [column["real"], column["generated"]]
            texts = [column["name"], *column["labels"], *column.get("range", ())]
            whole = "range" in column or len(column["labels"]) == len(bars[0])
            if not (whole and len(bars[0]) == len(bars[1]) and all(isinstance(text, str) for text in texts)):
                return False
            np.array(bars, float)
        matrices = [np.array(value["associations"][name], float) for name in ("real", "generated")]
        return all(matrix.shape == (count, count) for matrix in matrices)
    except (TypeError, KeyError, ValueError, AttributeError):
        return False


# ---- Pictures


def chart(found: Summary) -> Image.Image:
    """A picture of a ``summary``: a panel for each column, and the matrices of associations side by side below."""
    columns = found["columns"]
    across = min(_WIDTH // _PANEL, max(len(columns), 1))
    panels = _HEIGHT * math.ceil(len(columns) / across)
    head = 34
    kept = _most_associated(found["associations"])
    cell = _cell(len(kept))
    image = _Canvas(_WIDTH, head + panels + 40 + cell * len(kept) + 20)
    _legend(image, found)
    for number, column in enumerate(columns):
        left, top = number % across * (_WIDTH // across), head + number // across * _HEIGHT
        _panel(image, column, left + 12, top, _WIDTH // across - 24)
    names = [column["name"] for column in columns]
    _matrices(image, names, found["associations"], kept, head + panels + 10, cell)
    return image.reduced()


def _most_associated(matrices: Mapping[str, Any]) -> list[int]:
    """The columns whose associations a chart shows: all, or those with the largest association to another one."""
    values = np.abs(np.array(next(iter(matrices.values())), float))
    strongest = np.where(np.eye(len(values), dtype=bool), 0, values).max(1, initial=0)
    return sorted(np.argsort(-strongest, kind="stable")[: (_WIDTH - 200) // 2 // _CELL].tolist())


def _cell(columns: int) -> int:
    """The side of a cell of a matrix in pixels, for which two matrices and the names fit side by side."""
    return min((_WIDTH - 200) // 2 // max(columns, 1), 28)


class _Canvas:
    """A white picture that is drawn larger than it is shown. Lengths are pixels of the picture that is shown."""

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]) -> None:
        x0, y0, x1, y1 = (round(side * _SCALE) for side in (left, top, right, bottom))
        if x1 > x0 and y1 > y0:
            self._draw.rectangle((x0, y0, x1 - 1, y1 - 1), colour)

    def line(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int], width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, colour, round(width * _SCALE), joint="curve")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        width: float,
        size: float = 11,
        colour: tuple[int, int, int] = _MUTED,
        anchor: str = "la",
    ) -> None:
        """Text that ends with dots if it is wider than ``width``."""
        font = _font(round(size * _SCALE))
        text = " ".join(_drawable(text).split())
        short = text
        while len(short) > 1 and font.getlength(short) > width * _SCALE:
            text = text[:-1]
            short = text.rstrip() + "\u2026"
        self._draw.text((x * _SCALE, y * _SCALE), short, colour, font, anchor)

    def reduced(self) -> Image.Image:
        width, height = self._image.size
        return self._image.resize((width // _SCALE, height // _SCALE), Image.Resampling.LANCZOS)


_font = functools.cache(ImageFont.load_default)


def _drawable(text: str) -> str:
    """The text without accents, because Pillow's own font has no letters beyond ASCII."""
    parts = unicodedata.normalize("NFKD", text.replace("\u00df", "ss"))
    plain = "".join(letter for letter in parts if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode()


def _legend(image: _Canvas, found: Summary) -> None:
    at = 12
    for name, colour in (("real", _GREY), ("generated", _ORANGE)):
        if name in found["associations"]:
            image.box(at, 12, at + 14, 20, colour)
            image.text(at + 20, 9, name, 100, 12, _TEXT)
            at += 40 + 8 * len(name)
    image.text(at, 9, "share of the rows", 200, 12)


def _panel(image: _Canvas, column: dict[str, Any], left: float, top: float, width: float) -> None:
    image.text(left, top, column["name"], width, 12, _TEXT)
    if "range" in column:
        _histogram(image, column, left, top + 18, width)
    else:
        _bar_list(image, column, left, top + 18, width)


def _histogram(image: _Canvas, column: dict[str, Any], left: float, top: float, width: float) -> None:
    """Real shares as grey bars, and generated shares as a line of steps."""
    shares = {name: column[name] for name in ("real", "generated") if name in column}
    count, missing = len(next(iter(shares.values()))), len(column["labels"])
    bins, height, bottom = count - missing, 104, top + 104
    highest = max(max(values) for values in shares.values()) or 1
    for name, values in shares.items():
        colour, tall = (_GREY if name == "real" else _ORANGE), [value / highest * height for value in values]
        side = (width - 46 * missing) / bins
        places = [(left + i * side, left + (i + 1) * side, tall[i]) for i in range(bins)]
        places += [(left + width - 30, left + width - 12, tall[-1])] * missing
        steps: list[tuple[float, float]] = []
        for start, end, up in places:
            if name == "real":
                image.box(start, bottom - up, end - 0.5, bottom, (196, 196, 196))
            elif end <= left + width - 46 * missing + 1:
                steps += [(start, bottom - up), (end, bottom - up)]
            else:
                image.line([(start - 3, bottom - up), (end + 3, bottom - up)], colour, 1.5)
        if steps:
            image.line(steps, colour, 1.5)
    image.line([(left, bottom), (left + width, bottom)], _LINE)
    low, high = column["range"]
    image.text(left, bottom + 4, low, width / 3, 10)
    image.text(left + width - 46 * missing, bottom + 4, high, width / 3, 10, anchor="ra")
    if missing:
        image.text(left + width, bottom + 4, "missing", 44, 10, anchor="ra")


def _bar_list(image: _Canvas, column: dict[str, Any], left: float, top: float, width: float) -> None:
    """Two horizontal bars for each category: real above generated."""
    shares = {name: column[name] for name in ("real", "generated") if name in column}
    highest = max(max(values, default=0) for values in shares.values()) or 1
    step, text = min(118 / max(len(column["labels"]), 1), 22), 92
    for number, label in enumerate(column["labels"]):
        y = top + number * step
        image.text(left + text - 6, y + step / 2, label, text - 6, min(10, step), anchor="rm")
        for name, values in shares.items():
            half = step * 0.42 if len(shares) > 1 else step * 0.84
            shift = half if name == "generated" and len(shares) > 1 else 0
            end = left + text + values[number] / highest * (width - text)
            colour = _GREY if name == "real" else _ORANGE
            image.box(left + text, y + step * 0.08 + shift, end, y + step * 0.08 + shift + half, colour)
    image.line([(left + text, top), (left + text, top + step * len(column["labels"]))], _LINE)


def _matrices(
    image: _Canvas,
    all_names: Sequence[str],
    matrices: Mapping[str, Any],
    kept: Sequence[int],
    top: float,
    cell: int,
) -> None:
    """The associations of the columns ``kept``: blue for -1, white for 0, red for 1. The names are on the left."""
    names_width, gap = 150, 24
    names = [all_names[i] for i in kept]
    part = f" ({len(kept)} of {len(all_names)} columns, with the largest)" if len(kept) < len(all_names) else ""
    for place, (name, values) in enumerate(matrices.items()):
        left = 12 + names_width + place * (cell * len(names) + gap)
        image.text(left, top, f"associations, {name}{part}", cell * len(names), 12, _TEXT)
        for i, row in enumerate(np.array(values)[np.ix_(kept, kept)].tolist()):
            for j, value in enumerate(row):
                x, y = left + j * cell, top + 22 + i * cell
                image.box(x, y, x + cell - 0.5, y + cell - 0.5, colour_of(value))
    for i, name in enumerate(names):
        middle = top + 22 + (i + 0.5) * cell
        image.text(12 + names_width - 6, middle, name, names_width - 8, min(10, cell), anchor="rm")


def colour_of(value: float) -> tuple[int, int, int]:
    """The colour of an association from -1 (blue) over 0 (almost white) to 1 (red)."""
    share, end = min(abs(value), 1.0), np.array(_ORANGE if value >= 0 else _BLUE)
    red, green, blue = np.rint(np.array((243, 243, 243)) * (1 - share) + end * share).astype(int)
    return int(red), int(green), int(blue)
