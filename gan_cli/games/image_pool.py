"""The image pool: a discriminator judges earlier translations too (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gan_cli.types import Tree


def empty(size: int, shape: tuple[int, ...]) -> Tree:
    """The state of an empty pool: ``images`` ``[size, *shape]`` and the number of stored images, ``count``."""
    return {"images": jnp.zeros((size, *shape)), "count": jnp.zeros((), jnp.int32)}


def query(pool: Tree, made: jax.Array, key: jax.Array) -> tuple[jax.Array, Tree]:
    """A pair: the images that the discriminator judges instead of ``made``, and the new state of the pool.

    The images pass through the pool one after another, as in the code of Zhu et al. (2017). While the pool fills
    up, each image is stored and returned. A full pool returns a stored image with probability 1/2 and stores the
    new image in its place. Otherwise, it returns the new image.

    Args:
        pool: state of the pool.
        made: new images ``[n, h, w, c]``. Gradients pass through the images that are returned unchanged.
        key: random key.
    """
    size = len(pool["images"])

    def one(pool: Tree, row: tuple[jax.Array, jax.Array]) -> tuple[Tree, jax.Array]:
        image, key = row
        swap_key, place_key = jax.random.split(key)
        full = pool["count"] == size
        swaps = full & jax.random.bernoulli(swap_key)
        place = jnp.where(full, jax.random.randint(place_key, (), 0, size), pool["count"])
        stored = pool["images"][place]
        # One image is written in any case, because a choice between two whole pools would copy the pool.
        written = jnp.where(full & ~swaps, stored, jax.lax.stop_gradient(image))
        after = {"images": pool["images"].at[place].set(written), "count": jnp.minimum(pool["count"] + 1, size)}
        return after, jnp.where(swaps, stored, image)

    pool, shown = jax.lax.scan(one, pool, (made, jax.random.split(key, len(made))))
    return shown, pool
