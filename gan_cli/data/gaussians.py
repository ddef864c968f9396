"""Mixtures of Gaussians in the plane: data whose modes are known, so that a lost mode can be counted."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset, Modes
from gan_cli.types import PositiveFloat, PositiveInt, Spec


def ring(*, modes: PositiveInt = 8, std: PositiveFloat = 0.01, size: PositiveInt = 100_000) -> Dataset:
    """``modes`` Gaussians evenly on the unit circle (Srivastava et al. 2017, VEEGAN, section 4.1)."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return _mixture("ring", np.stack([np.cos(angles), np.sin(angles)], axis=1), std, size)


def grid(*, side: PositiveInt = 5, std: PositiveFloat = 0.05, size: PositiveInt = 100_000) -> Dataset:
    """``side`` x ``side`` Gaussians, 2 apart, centred on the origin (Srivastava et al. 2017, section 4.1)."""
    places = 2.0 * (np.arange(side) - (side - 1) / 2)
    return _mixture("grid", np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2), std, size)


def _mixture(name: str, centres: np.ndarray, std: float, size: int) -> Dataset:
    """``size`` points, as evenly among the modes as they divide; always the same points."""
    labels = (np.arange(size) % len(centres)).astype(np.int32)
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((size, 2))
    points = (centres[labels] + std * noise).astype(np.float32)
    return Dataset(name, Spec((2,), num_classes=len(centres)), points, labels, modes=Modes(centres, std))


def point(*, size: PositiveInt = 1000) -> Dataset:
    """``size`` times the number 0: the data of the Dirac-GAN (Mescheder et al. 2018, definition 2.1)."""
    return Dataset("point", Spec((1,)), np.zeros((size, 1), np.float32))
