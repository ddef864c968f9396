"""Random permutations that are computed element by element, without storing the permutation."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def permuted(places: jax.Array, size: int | jax.Array, keys: jax.Array, largest: int | None = None) -> jax.Array:
    """Maps ``places`` through a random permutation of ``0..size-1`` without storing the permutation.

    The method is the swap-or-not shuffle (Hoang, Morris and Rogaway 2012). In each round, a random reflection pairs
    the places, and a random bit for each pair determines whether the two places are swapped. The cost is a few
    integer operations per round and place. In contrast, sorting random keys would process the whole data set. All
    operations are on integers, so a host and an accelerator compute the same permutation.

    Args:
        places: array of any shape with integers in ``[0, size)``.
        size: length of the permutation, below 2**31. An array gives each place a permutation of its own length, and
            broadcasts against ``places``.
        keys: seed of the permutation, uint32 ``[..., 2]``. The leading axes broadcast against ``places``.
        largest: upper bound of ``size``. Only an array ``size`` needs it.
    """
    most = size if largest is None else largest
    # After about 6 log2(size) rounds the shuffle is indistinguishable from a uniform permutation (theorem 2).
    rounds = 6 * max(int(most - 1).bit_length(), 1)
    n = jnp.uint32(size)
    first, second = keys[..., 0], keys[..., 1]
    places = jnp.broadcast_to(places, jnp.broadcast_shapes(places.shape, first.shape)).astype(jnp.uint32)

    def swap_or_not(round_: jax.Array, i: jax.Array) -> jax.Array:
        offset = _hash(first + round_.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)) % n
        partner = jnp.where(offset >= i, offset - i, offset + (n - i))
        pair = jnp.maximum(i, partner)
        bit = _hash(_hash(pair ^ second) + round_.astype(jnp.uint32)) >> 31
        return jnp.where(bit == 1, partner, i)

    mapped: jax.Array = jax.lax.fori_loop(0, rounds, swap_or_not, places)
    return mapped.astype(jnp.int32)


def _hash(x: jax.Array) -> jax.Array:
    """A 32-bit integer hash: the finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
