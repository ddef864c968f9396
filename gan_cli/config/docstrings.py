"""Reads the docstrings of configurable functions: their summary, their text, and the meaning of each option."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^    (\w+): (.*)$")


class Docstring(NamedTuple):
    """The parts of a docstring.

    Attributes:
        summary: its first paragraph, as one line.
        text: the paragraphs after the summary, without the sections.
        meanings: the entries of ``Args:`` and ``Attributes:``, each as one line, by name.
    """

    summary: str
    text: str
    meanings: dict[str, str]


def parse(docstring: str | None) -> Docstring:
    """The parts of a docstring in Google style; ``None`` has empty parts."""
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
            elif entry and line.strip() and not _SECTION.match(line):
                meanings[entry].append(line.strip())
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in "\n".join(prose).strip().split("\n\n")]
    return Docstring(
        _plain(paragraphs[0].strip()),
        _plain("\n\n".join(p.strip() for p in paragraphs[1:] if p.strip())),
        {name: _plain(" ".join(parts)) for name, parts in meanings.items()},
    )


def first_sentence(text: str) -> str:
    """``text`` up to its first full stop; the full stop of an abbreviation ("et al.") does not count."""
    match = re.search(r"(?<!et al)(?<!e\.g)(?<!i\.e)(?<!eq)[.](?=\s|$)", text)
    return text[: match.end()] if match else text


def _plain(text: str) -> str:
    return text.replace("``", "`")
