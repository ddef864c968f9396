"""Tables: files of rows and columns, the kinds of their columns, and the feature that networks see."""

from __future__ import annotations

import zipfile
from pathlib import Path

# The suffixes of the files that ``gan-sample`` writes for a table.
SUFFIXES = (".csv", ".parquet", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".csv.zip")
_READ = {".csv", ".tsv", ".txt", ".parquet"}


def suffix_of(path: Path) -> str:
    """The suffix of ``SUFFIXES`` in which the name of a file ends, or an empty text."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")


def is_table(path: Path) -> bool:
    """Whether a file is read as a table: any file except .npz files, and zip files without .csv in their names."""
    if not path.is_file() or path.suffix == ".npz":
        return False
    return bool(_READ & set(path.suffixes)) or not zipfile.is_zipfile(path)
