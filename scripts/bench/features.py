"""Measures the speed of the Inception features and of the Frechet distance in gan_cli and torch-fidelity.

gan_cli and torch-fidelity use the same random weights and the same 32x32 colour images in uint8, and are measured
in turn. torch-fidelity uses its default batch size of 64 images. Speeds in the table are medians over the repeats.
Ratios are medians of the ratios of successive measurements.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from peers import DEVICE
from rich.console import Console
from rich.table import Table

from gan_cli.metrics import fid, inception
from gan_cli.metrics.features import Extractor

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import fidelity

THEIR_BATCH = 64


def measure(count: int, repeats: int) -> list[dict[str, Any]]:
    """Time the features of ``count`` images, their Frechet distance to ``count`` reference features, and the sum.

    Returns:
        The rows of the table.

    Raises:
        SystemExit: the features in gan_cli and torch-fidelity differ by more than 1e-3 of their standard deviation.
    """
    ours, theirs = _sides()
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    found, expected = ours(images[: inception.BATCH]), theirs(images[: inception.BATCH])
    difference = float(np.abs(found - expected).max() / expected.std())
    if not difference < 1e-3:
        sys.exit(
            f"the features in gan_cli and torch-fidelity differ by {difference:.2g} of their standard deviation"
        )
    theirs(images[:THEIR_BATCH])
    reference = np.maximum(np.random.default_rng(1).standard_normal((count, expected.shape[1]), np.float32), 0)
    seconds: dict[str, dict[str, list[float]]] = {
        what: {"ours": [], "theirs": []} for what in ("features", "distance")
    }
    distances = (lambda fake: fid.fid()(fake, reference)["fid"], lambda fake: _their_fid(fake, reference))
    for _ in range(repeats):
        for side, extract, distance in zip(("ours", "theirs"), (ours, theirs), distances, strict=True):
            began = time.perf_counter()
            features = extract(images)
            between = time.perf_counter()
            distance(features)
            seconds["features"][side].append(between - began)
            seconds["distance"][side].append(time.perf_counter() - between)
    whole = {side: [sum(both) for both in zip(*(seconds[what][side] for what in seconds), strict=True)]
             for side in ("ours", "theirs")}  # fmt: skip
    return [
        {
            "part": part,
            "images": count,
            "ours_images_per_s": round(count / statistics.median(taken["ours"]), 3),
            "theirs_images_per_s": round(count / statistics.median(taken["theirs"]), 3),
            "ratio": round(
                statistics.median(b / a for a, b in zip(taken["ours"], taken["theirs"], strict=True)), 3
            ),
            "feature_difference": difference,
        }
        for part, taken in (*seconds.items(), ("whole", whole))
    ]


def _sides() -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        fidelity.torch.save(fidelity.random_weights(), path)
        with mock.patch.object(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest()):
            params = jax.device_put(inception.load(path).params)
        network = fidelity.extractor(path, DEVICE)
    extractor = Extractor("inception", "", params, inception.apply, inception.BATCH, True)

    def theirs(images: np.ndarray) -> np.ndarray:
        return np.concatenate([network(images[i : i + THEIR_BATCH])[0] for i in range(0, len(images), THEIR_BATCH)])

    return lambda images: extractor([images])[0], theirs


def _their_fid(fake: np.ndarray, real: np.ndarray) -> float:
    first, second = (
        fidelity.metric_fid.fid_features_to_statistics(fidelity.torch.from_numpy(x)) for x in (fake, real)
    )
    return fidelity.metric_fid.fid_statistics_to_metric(first, second, False)[fidelity.metric_fid.KEY_METRIC_FID]


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"images/s, of {rows[0]['images']} images")
    for column in ("part", "ours", "torch-fidelity", "ratio"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in rows:
        table.add_row(
            row["part"],
            f"{row['ours_images_per_s']:.4g}",
            f"{row['theirs_images_per_s']:.4g}",
            f"{row['ratio']:.2f}x",
        )
    Console(width=120).print(table)
