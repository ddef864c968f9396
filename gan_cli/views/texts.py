"""Texts for people: the contents of a text file, and a page as a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

COUNT = 64  # number of texts in a file that training writes
_RULE = "-" * 40  # the line between texts that contain line breaks
_COLUMNS, _LINES = 110, 32  # characters of a line, and the most lines, of a page
_SIZE, _MARGIN = 14, 16  # height of the letters and margin of a page in pixels


def content(texts: Sequence[str], several_lines: bool) -> str:
    """The content of a file with texts: a line for each or, for texts with line breaks, a rule between them.

    Args:
        texts: the texts.
        several_lines: whether texts of this vocabulary may contain line breaks.
    """
    return "".join(f"{text}\n{_RULE}\n" for text in texts) if several_lines else "".join(f"{t}\n" for t in texts)


def has_lines(vocabulary: Sequence[str]) -> bool:
    """Whether texts of a vocabulary may contain line breaks."""
    return any("\n" in token for token in vocabulary)


def printable(text: str) -> str:
    """The text without control characters other than line breaks and tabs, which would control a terminal."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def page(texts: Sequence[str], several_lines: bool) -> Image.Image:
    """A picture of the first texts, in lines of at most 110 characters. Letters beyond ASCII lose their accents."""
    plain = unicodedata.normalize("NFKD", content(texts[:COUNT], several_lines)).encode("ascii", "ignore").decode()
    lines = [line[i : i + _COLUMNS] for line in plain.splitlines() for i in range(0, max(len(line), 1), _COLUMNS)]
    lines = lines[:_LINES]
    font = ImageFont.load_default(_SIZE)
    width = max((font.getlength(line) for line in lines), default=0)
    step = round(_SIZE * 1.4)
    picture = Image.new("RGB", (round(width) + 2 * _MARGIN, step * max(len(lines), 1) + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + i * step), line, "#333333", font)
    return picture
