"""Trivial generators of moving digits, each of which reaches good values in most metrics of clips.

All functions take training clips ``[n, frames, height, width, channels]`` as they are stored, and return as many
clips of the same kind, so that the same metrics judge them and the samples of a run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.moving_digits import placed
from gan_cli.metrics.clip_statistics import masses_and_centroids


def baselines(data: Dataset, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The clips of trivial generators by name, ``n`` of each, and held-out clips.

    Args:
        data: clips of moving digits.
        n: number of clips of each generator.
        seed: seed of the random choices.
    """
    rng = np.random.default_rng(seed)
    assert data.held_out is not None
    clips = data.take(rng.permutation(data.size)[:n])[data.main]
    digits = np.asarray(data.arrays[data.main].sources)
    made: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
        "static frame": static,
        "black": black,
        "white noise": noise,
        "jittering digit": functools.partial(jittering, digits=digits),
        "one real frame, rolled along an axis": rolled,
        "one clip repeated": repeated,
        "shuffled frames": shuffled,
    }
    real = {"held-out clips": data.held_out[data.main][:n], "training clips": clips}
    return real | {name: make(clips, rng) for name, make in made.items()}


def static(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frame of each clip, in all frames."""
    return np.broadcast_to(clips[:, :1], clips.shape).copy()


def black(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clips without light."""
    return np.zeros_like(clips)


def noise(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent uniform values in each pixel."""
    return rng.integers(0, 256, clips.shape, np.uint8)


def jittering(clips: np.ndarray, rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """A real digit that moves as far in each frame as the digits of the clips, but every time in a new direction.

    Args:
        clips: training clips.
        rng: source of random numbers.
        digits: digits ``[m, side, side]`` in the size of the clips.
    """
    n, frames, size = clips.shape[:3]
    room = size - digits.shape[1]
    angles = rng.uniform(0, 2 * np.pi, (n, frames - 1))
    steps = _step(clips) * np.stack([np.sin(angles), np.cos(angles)], axis=2)
    path = rng.uniform(0, room, (n, 1, 2)) + np.pad(steps.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    corners = room - np.abs(room - path % (2 * room))  # reflected at the border, as the digits of the clips
    place = jax.jit(functools.partial(placed, size=size))
    shown = digits[rng.integers(len(digits), size=n)].astype(np.float32)
    made = [place(digit, own) for digit, own in zip(shown, corners, strict=True)]
    found: np.ndarray = np.rint(np.stack(made)).astype(np.uint8)[..., None]
    return found


def rolled(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frame of each clip, rolled to the left or to the right, as fast as the digits of the clips."""
    speed = max(round(_step(clips)), 1)
    made = np.empty_like(clips)
    for i, sign in enumerate(rng.choice([-1, 1], len(clips))):
        for t in range(clips.shape[1]):
            made[i, t] = np.roll(clips[i, 0], sign * speed * t, axis=1)
    return made


def repeated(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A single real clip, as often as there are clips."""
    return np.broadcast_to(clips[:1], clips.shape).copy()


def shuffled(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Real clips, each with its frames in a random order."""
    order = rng.permuted(np.tile(np.arange(clips.shape[1]), (len(clips), 1)), axis=1)
    found: np.ndarray = clips[np.arange(len(clips))[:, None], order]
    return found


def _step(clips: np.ndarray) -> float:
    """The median distance between successive centroids in pixels, which bounces do not shorten."""
    return float(np.median(np.linalg.norm(np.diff(masses_and_centroids(clips)[1], axis=1), axis=2)))
