"""Tables: files of rows and columns, the kinds of their columns, and the feature that networks see."""

from __future__ import annotations

from pathlib import Path

# The suffixes of the files that ``gan-sample`` writes for a table.
SUFFIXES = (".csv", ".parquet", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".csv.zip")


def suffix_of(path: Path) -> str:
    """The suffix of ``SUFFIXES`` in which the name of a file ends, or an empty text."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
