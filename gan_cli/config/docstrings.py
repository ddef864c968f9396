"""Splits docstrings in Google style into a summary, further text, and the meaning of each option."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^    (\w+): (.*)$")


class Docstring(NamedTuple):
    """The parts of a docstring.

    Attributes:
        summary: the first paragraph, as one line.
        text: the other paragraphs, without sections such as ``Args:``.
        meanings: dictionary from the names in ``Args:`` and ``Attributes:`` to their entries, each as one line.
    """

    summary: str
    text: str
    meanings: dict[str, str]


def parse(docstring: str | None) -> Docstring:
    """Split a docstring in Google style into its parts. For None, all parts are empty."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    prose: list[str] = []
    meanings: dict[str, list[str]] = {}
    section, entry = "", ""
    for line in lines:
        if match := _SECTION.match(line):
            section = match.group(1)
        elif section and line and not line.startswith(" "):
            section = ""
        if not section:
            prose.append(line)
        elif section in ("Args", "Attributes"):
            if match := _ENTRY.match(line):
                entry = match.group(1)
                meanings[entry] = [match.group(2)]
            elif entry and line.strip():
                meanings[entry].append(line.strip())
    summary, _, text = reflowed(prose).partition("\n\n")
    meanings_by_name = {name: _plain(" ".join(parts)) for name, parts in meanings.items()}
    return Docstring(_plain(summary.replace("\n", " ")), _plain(text), meanings_by_name)


def reflowed(lines: list[str]) -> str:
    """Join the lines of each paragraph.

    List items and indented lines stay on separate lines. A line that continues a list item is joined to the item.
    """
    text = ""
    for line in lines:
        if not line.strip():
            text = text.rstrip() + "\n\n"
        elif line.startswith(("- ", "  ")) and not (line.startswith("  ") and _last_line(text).startswith("- ")):
            text = text.rstrip(" ") + ("" if text.endswith("\n") or not text else "\n") + line
        else:
            ends = not text or text.endswith("\n")
            text += ("" if ends else "\n" if _last_line(text).startswith("  ") else " ") + line.strip()
    return text.strip()


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2]


def first_sentence(text: str) -> str:
    """The first sentence of ``text``. The full stop of an abbreviation like "et al." does not end a sentence."""
    match = re.search(r"(?<!et al)(?<!e\.g)(?<!i\.e)(?<!eq)[.](?=\s|$)", text)
    return text[: match.end()] if match else text


def _plain(text: str) -> str:
    return text.replace("``", "`")
