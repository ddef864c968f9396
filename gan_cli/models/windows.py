"""Windows: how layers treat a part of an image as a part of the whole.

Two kinds of layers depend on more than the pixels of a part: normalisation, on the statistics of the whole image,
and dropout, on the position of the part. While a ``Window`` is active, these layers ask it for both. A window is
active only while a function of tiles is traced, so the compiled steps of training do not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import jax


class Window(Protocol):
    """A part of an image."""

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A pair: mean and variance ``[c]`` of a layer's input ``x`` ``[1, h, w, c]`` over the whole image."""
        ...

    def origin(self, x: jax.Array) -> tuple[jax.Array | int, jax.Array | int]:
        """Row and column, in the whole image, of the first pixel of a layer's input ``[1, h, w, c]``."""
        ...


_CURRENT: ContextVar[Window | None] = ContextVar("window", default=None)


def current() -> Window | None:
    """The active window, or None."""
    return _CURRENT.get()


@contextmanager
def active(window: Window) -> Iterator[None]:
    """Activates a window for the layers that are called inside the ``with`` block."""
    token = _CURRENT.set(window)
    try:
        yield
    finally:
        _CURRENT.reset(token)
