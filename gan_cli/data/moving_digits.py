"""Moving digits: clips of MNIST digits that move with constant speed and bounce off the border of the frame.

A clip is a function of its number, so that no clip is stored: a compiled program renders the clips of each batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.rendered import Rendered
from gan_cli.data.video.feature import Video
from gan_cli.errors import UserError
from gan_cli.types import PositiveFloat, PositiveInt

HELD_OUT = 1000  # number of held-out clips
_TRAINING, _TEST = 0, 1  # seeds of the motions


class Motion(NamedTuple):
    """How digits move through a clip.

    Attributes:
        digits: number of digits in each clip.
        frames: number of frames.
        size: height and width of a frame in pixels.
        digit_size: height and width of a digit in pixels.
        speed: length of the path of a digit between two frames, in pixels.
        seed: seed of the digits, their starts and their directions.
    """

    digits: int
    frames: int
    size: int
    digit_size: int
    speed: float
    seed: int = 0


def moving_digits(
    *,
    digits: PositiveInt = 2,
    size: PositiveInt = 64,
    digit_size: PositiveInt = 28,
    frames: PositiveInt = 20,
    speed: PositiveFloat | None = None,
    clips: PositiveInt = 100_000,
) -> Dataset:
    """Clips of MNIST digits that move at a constant speed and bounce off the border of the frame.

    Srivastava, Mansimov and Salakhutdinov 2015, section 4: the start and the direction of each digit are uniform,
    and overlapping digits show the brighter pixel. In contrast to their clips, digits stand between pixels, where
    bilinear interpolation draws them, and are reflected inside a step, so that no bounce changes the speed. The
    digits are those of ``mnist5k``. Clips are rendered when a batch needs them, and are identical in every run.
    With one digit, its class is the label of the clip. The 1,000 held-out clips show the held-out digits.

    Args:
        digits: number of digits in each clip.
        size: height and width of a frame in pixels.
        digit_size: height and width of a digit in pixels.
        frames: number of frames in a clip.
        speed: pixels that a digit moves from frame to frame. With null, a tenth of ``size - digit_size``.
        clips: number of training clips, each with another motion.

    Raises:
        UserError: the frame is not larger than a digit.
    """
    if size <= digit_size:
        raise UserError(
            f"dataset.size={size}: leaves a digit of dataset.digit_size={digit_size} pixels no room to move. Set a "
            f"larger dataset.size, e.g. {2 * digit_size}, or a smaller dataset.digit_size."
        )
    data = mnist5k()
    assert data.held_out is not None
    moved = 0.1 * (size - digit_size) if speed is None else speed
    feature = Video(frames, size, size, 1)
    parts = []
    for arrays, count, seed in ((data.arrays, clips, _TRAINING), (data.held_out, HELD_OUT, _TEST)):
        motion = Motion(digits, frames, size, digit_size, moved, seed)
        images, labels = resized(arrays["x"][..., 0], digit_size), arrays["label"]
        part = {"x": Rendered(images, clip, motion, count, feature.shape, np.dtype(np.uint8))}
        if digits == 1:
            part["label"] = labels[_shown(motion, len(labels), count)[:, 0]]
        parts.append(part)
    return Dataset(
        name="moving_digits",
        spec=spec_of(feature, 10 if digits == 1 else None),
        examples=parts[0],
        held_out=parts[1],
        class_names=data.class_names if digits == 1 else (),
    )


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Digits ``[n, 28, 28]`` in uint8, resized to ``side`` pixels with the antialiased bilinear filter."""
    if images.shape[1] == side:
        return images
    made = jax.image.resize(images.astype(np.float32), (len(images), side, side), "linear", antialias=True)
    return np.asarray(jnp.clip(jnp.rint(made), 0, 255).astype(jnp.uint8))


def clip(motion: Motion, images: jax.Array, number: jax.Array) -> jax.Array:
    """The clip with a number: uint8 ``[frames, size, size, 1]``.

    Args:
        motion: how the digits move.
        images: digits ``[n, digit_size, digit_size]`` in uint8.
        number: the number of the clip, an int32 scalar.
    """
    shown, start, direction = _drawn(number, motion, len(images))
    places = positions(start, direction, motion)
    frames = jax.vmap(placed, (0, 1, None), 1)(images[shown].astype(jnp.float32), places, motion.size)
    return jnp.rint(frames.max(1)).astype(jnp.uint8)[..., None]


def positions(start: jax.Array, direction: jax.Array, motion: Motion) -> jax.Array:
    """The top left corners of digits in each frame: float32 ``[frames, digits, 2]``, row and column in pixels.

    Args:
        start: the corners in the first frame ``[digits, 2]``, from 0 to ``size - digit_size``.
        direction: unit vectors ``[digits, 2]``.
        motion: how the digits move.
    """
    room = motion.size - motion.digit_size
    path = start + jnp.arange(motion.frames)[:, None, None] * (motion.speed * direction)
    return room - jnp.abs(room - path % (2 * room))  # a straight path, reflected at 0 and at ``room``


def placed(image: jax.Array, corners: jax.Array, size: int) -> jax.Array:
    """An image ``[h, w]`` at each of ``corners`` ``[frames, 2]`` of dark frames: float32 ``[frames, size, size]``.

    Bilinear interpolation: each pixel of the image is divided among the four nearest pixels of the frame.
    """

    def weights(corner: jax.Array, length: int) -> jax.Array:
        apart = jnp.arange(size)[:, None] - (corner[:, None, None] + jnp.arange(length))
        return jnp.maximum(1 - jnp.abs(apart), 0)  # [frames, size, length]

    down, across = weights(corners[:, 0], image.shape[0]), weights(corners[:, 1], image.shape[1])
    return jnp.einsum("fah,hw,fbw->fab", down, image, across, precision="highest")


def _drawn(number: jax.Array, motion: Motion, digits: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The digits of a clip ``[digits]``, their corners in the first frame and their directions ``[digits, 2]``."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(motion.seed), number), 3)
    shown = jax.random.randint(keys[0], (motion.digits,), 0, digits)
    start = jax.random.uniform(keys[1], (motion.digits, 2)) * (motion.size - motion.digit_size)
    angle = jax.random.uniform(keys[2], (motion.digits,), maxval=2 * jnp.pi)
    return shown, start, jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=1)


def _shown(motion: Motion, digits: int, count: int) -> np.ndarray:
    """The numbers ``[count, digits]`` of the digits in the first ``count`` clips."""
    return np.asarray(jax.jit(jax.vmap(lambda number: _drawn(number, motion, digits)[0]))(jnp.arange(count)))
