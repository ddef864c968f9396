"""Tables: files of rows and columns, the kinds of their columns, and the feature that networks see."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".csv", ".csv.gz", ".parquet")  # of the files that ``gan_cli.data.tables.writing`` writes


def suffix_of(path: Path) -> str:
    """The suffix of ``SUFFIXES`` in which the name of a file ends, or an empty text."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
