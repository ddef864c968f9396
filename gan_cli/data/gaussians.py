"""Synthetic data with a known distribution: mixtures of Gaussians and a single point."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset, Modes
from gan_cli.data.features import Vector, spec_of
from gan_cli.types import PositiveFloat, PositiveInt


def ring(*, modes: PositiveInt = 8, std: PositiveFloat = 0.01, size: PositiveInt = 100_000) -> Dataset:
    """Mixture of Gaussians whose means are evenly spaced on the unit circle.

    The data set follows Srivastava et al. 2017 (VEEGAN), section 4.1. The label of a point is the index of
    the point's Gaussian. The points are identical in every run.

    Args:
        modes: number of Gaussians.
        std: standard deviation of each Gaussian. The circle has radius 1.
        size: number of examples in the data set.
    """
    angles = 2 * np.pi * np.arange(modes) / modes
    return _mixture("ring", np.stack([np.cos(angles), np.sin(angles)], axis=1), std, size)


def grid(*, side: PositiveInt = 5, std: PositiveFloat = 0.05, size: PositiveInt = 100_000) -> Dataset:
    """Mixture of Gaussians whose means form a square grid with spacing 2, centred on the origin.

    The data set follows Srivastava et al. 2017 (VEEGAN), section 4.1. The label of a point is the index of
    the point's Gaussian. The points are identical in every run.

    Args:
        side: number of Gaussians along each side of the grid. The grid has ``side**2`` Gaussians.
        std: standard deviation of each Gaussian. The distance between neighbouring means is 2.
        size: number of examples in the data set.
    """
    places = 2.0 * (np.arange(side) - (side - 1) / 2)
    return _mixture("grid", np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2), std, size)


def _mixture(name: str, centres: np.ndarray, std: float, size: int) -> Dataset:
    """A mixture of Gaussians: ``size`` points from a fixed seed, distributed evenly over the modes."""
    labels = (np.arange(size) % len(centres)).astype(np.int32)
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((size, 2))
    points = (centres[labels] + std * noise).astype(np.float32)
    examples = {"x": points, "label": labels}
    return Dataset(name, spec_of(Vector(2), len(centres)), examples, modes=Modes(centres, std))


def point(*, size: PositiveInt = 1000) -> Dataset:
    """The single point 0, the data distribution of the Dirac-GAN.

    Mescheder et al. 2018 introduce the Dirac-GAN in definition 2.1.

    Args:
        size: number of examples in the data set. Every example is 0.
    """
    return Dataset("point", spec_of(Vector(1)), {"x": np.zeros((size, 1), np.float32)})
