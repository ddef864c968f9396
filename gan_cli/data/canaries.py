"""Canaries: random training examples, each included by a fair coin, that test a claim of privacy.

Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run". A canary is unlike the data and
unlike the other canaries, so that training on it leaves a trace of its own: an image of random black and white
pixels, or a row of random categories and extreme numbers, with a random class.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.dataset import Canaries, Dataset
from gan_cli.data.features import Image, Label
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.types import Feature

_STREAM = 7  # number of the stream of random numbers of a seed from which canaries and coins derive


def planted(data: Dataset, seed: int) -> Dataset:
    """The data set with the included canaries as its last training examples.

    The canaries and their coins derive from the seed of the run, so that a resumed run has the same data.

    Raises:
        UserError: the data are streamed, or are neither images nor rows of a table.
    """
    if not data.canaries:
        return data
    if data.streams or len(data.domains) > 1 or not isinstance(data.feature, Image | Table):
        raise UserError(
            f"dataset.canaries={data.canaries}: canaries are added to images or rows of one domain in memory, and "
            f"{data.name} has none. Set dataset.stream=false or dataset.canaries=0."
        )
    rng = np.random.default_rng([seed, _STREAM])
    included = rng.random(data.canaries) < 0.5
    examples: dict[str, np.ndarray] = {}
    for name, feature in data.spec.items():
        examples[name] = _drawn(feature, data.arrays[name], data.canaries, rng)
    if isinstance(data.feature, Table) and data.feature.label is not None:
        examples["label"] = data.feature.labels(examples[data.main])
    columns = dict(data.columns)
    if "training" in columns:
        assert isinstance(data.feature, Table)
        more = data.feature.restore(examples[data.main][included])
        old = columns["training"]
        columns["training"] = {name: np.concatenate([old[name], more[name]]) for name in more}
    return dataclasses.replace(
        data,
        examples={name: np.concatenate([old, examples[name][included]]) for name, old in data.arrays.items()},
        columns=columns,
        earlier=(),
        planted=Canaries(examples, included),
    )


def _drawn(feature: Feature, like: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` random examples of a feature, as they are stored.

    Args:
        feature: the feature.
        like: stored examples, with the dtype and the shape of an example.
        n: number of examples.
        rng: the random numbers.
    """
    if isinstance(feature, Label):
        return rng.integers(0, feature.classes, n).astype(like.dtype)
    if isinstance(feature, Table):
        scalars = rng.choice([-1.0, 1.0], (n, feature.scalars))
        choices = [rng.integers(0, span.width, n) for span in feature.spans]
        return np.concatenate([scalars, *(one[:, None] for one in choices)], axis=1).astype(like.dtype)
    white = np.iinfo(like.dtype).max
    return (rng.integers(0, 2, (n, *like.shape[1:])) * white).astype(like.dtype)


def path(run: Path) -> Path:
    """The file with the canaries in the directory of a run."""
    return run / "private" / "canaries.npz"


def write(run: Path, canaries: Canaries) -> None:
    """Write the canaries and their coins into the folder ``private`` of a run, readable by the owner only.

    The file has the array ``included`` ``[n]``, and an array of all canaries for each feature.
    """
    file, buffer = path(run), io.BytesIO()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o700)
    arrays: dict[str, Any] = {"included": canaries.included, **canaries.examples}
    np.savez(buffer, **arrays)
    files.write_bytes(file, buffer.getvalue(), mode=0o600)


def read(run: Path) -> Canaries | None:
    """The canaries of a run. None for a run without canaries, or for a copy of a run without the file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        arrays = files.read_arrays(path(run))
        return Canaries({name: one for name, one in arrays.items() if name != "included"}, arrays["included"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path(run)}: the canaries cannot be read ({error}). Restore the file from a copy."
        ) from error
