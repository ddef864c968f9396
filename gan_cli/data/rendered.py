"""``Rendered``, examples that are computed from their numbers when a batch needs them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_AT_ONCE = 256  # examples that the host renders in one call


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["sources"],
    meta_fields=["render", "options", "size", "of_example", "dtype"],
)
@dataclass(frozen=True, eq=False)
class Rendered:
    """Examples that stand for an array ``[size, *of_example]``, and are rendered whenever they are read.

    An index is read as from an array. Inside a compiled program, the result is a JAX array, on the host a NumPy
    array. The class is a pytree of its sources, so that a data set on the device consists of the sources alone.

    Attributes:
        sources: the arrays that ``render`` reads, e.g. the digits that move through the clips.
        render: pure function ``(options, sources, number) -> example`` in JAX, where ``number`` is an int32 scalar.
        options: hashable options of ``render``, whose ``repr`` identifies them.
        size: number of examples.
        of_example: shape of one example.
        dtype: NumPy dtype of the examples.
    """

    sources: Any
    render: Callable[[Any, Any, jax.Array], jax.Array]
    options: Any
    size: int
    of_example: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size, *self.of_example

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, jax.core.Tracer):
            return _render(self.render, self.options, self.sources, index)
        numbers = np.arange(self.size, dtype=np.int32)[index]
        flat = numbers.reshape(-1)
        made = np.empty((len(flat), *self.of_example), self.dtype)
        for start in range(0, len(flat), _AT_ONCE):
            part = flat[start : start + _AT_ONCE]
            padded = np.pad(part, (0, _AT_ONCE - len(part)))  # one compiled program for any number of examples
            whole = _compiled(self.render, self.options, self.sources, padded)
            made[start : start + len(part)] = whole[: len(part)]
        return made.reshape(*numbers.shape, *self.of_example)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _render(
    render: Callable[[Any, Any, jax.Array], jax.Array], options: Any, sources: Any, numbers: jax.Array
) -> jax.Array:
    flat = jax.vmap(functools.partial(render, options, sources))(numbers.reshape(-1))
    return jnp.reshape(flat, (*numbers.shape, *flat.shape[1:]))


_compiled = jax.jit(_render, static_argnums=(0, 1))
