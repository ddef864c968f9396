"""Likelihoods of examples given the outputs of a decoder, in nats per example, with all constants.

A Bernoulli likelihood models binary images. A Gaussian likelihood models points, and images of 8 or 16 bits per
value with uniform dequantisation: noise u is added that is uniform within the width w of one level. The probability
P of the levels and the density p of the D values satisfy log P(x) >= E log p(x + u) + D log w (Theis et al. 2016,
section 3.1). The likelihood of a row of a table is the product of those of its columns.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.tables.feature import Table

LOG_TWO_PI = float(np.log(2 * np.pi))


def level(bits: int) -> float:
    """Width of one level of images of 8 or 16 bits per value, on the scale of the networks, [-1, 1]."""
    return 2 / ((1 << bits) - 1)


_LEVEL = level(8)


def bernoulli(logits: jax.Array, binary: jax.Array) -> jax.Array:
    """log p of binary values, for each element: log sigma(l) for 1 and log sigma(-l) for 0, with the logit l."""
    return -jax.nn.softplus((1 - 2 * binary) * logits)


def gaussian(mean: jax.Array, log_variance: jax.Array, x: jax.Array) -> jax.Array:
    """log p of real values under a normal distribution, for each element."""
    return -0.5 * ((x - mean) ** 2 * jnp.exp(-log_variance) + log_variance + LOG_TWO_PI)


def table(raw: jax.Array, log_variance: jax.Array, x: jax.Array, feature: Table) -> jax.Array:
    """log p of rows of a table, for each scalar, followed by each choice: normal scalars, categorical choices.

    The loss of TVAE (Xu et al. 2019, section 4.5). In contrast to its code, the constant of the normal distribution
    is included.

    Args:
        raw: raw output of the decoder, ``[..., *shape]``.
        log_variance: logarithms of the variances of the scalars, ``[scalars]``.
        x: rows as networks see them, ``[..., *shape]``.
        feature: the feature of a row.
    """
    n = feature.scalars
    logits = [jax.nn.log_softmax(raw[..., s.start : s.start + s.width]) for s in feature.spans]
    targets = [x[..., s.start : s.start + s.width] for s in feature.spans]
    choices = [(a * b).sum(-1, keepdims=True) for a, b in zip(logits, targets, strict=True)]
    return jnp.concatenate([gaussian(feature.head(raw)[..., :n], log_variance, x[..., :n]), *choices], axis=-1)


def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence from N(mean, variance) to N(0, 1), for each element (Kingma and Welling 2014, appendix B)."""
    # expm1 keeps the precision of the difference of variance and 1 near the prior.
    return 0.5 * (mean**2 + jnp.expm1(log_variance) - log_variance)


def threshold(x: jax.Array) -> jax.Array:
    """Binary images: 1 where the value of an image ``x`` in [-1, 1] is positive, i.e. in its upper half."""
    return (x > 0).astype(x.dtype)


def sampled(x: jax.Array, uniform: jax.Array) -> jax.Array:
    """Binary images: each value is 1 with the probability (x + 1) / 2.

    Args:
        x: images in [-1, 1].
        uniform: random numbers of the same shape, uniform in [0, 1).
    """
    return (uniform < (x + 1) / 2).astype(x.dtype)


def sampled_once(x: jax.Array, width: float = _LEVEL) -> jax.Array:
    """Binary images as ``sampled`` draws them, with random numbers that depend on the image alone.

    The same image is thus the same binary image in every epoch, in every run and in evaluations, in any order and
    together with any other images. The random key of an image is a hash of its levels.

    Args:
        x: images ``[n, *shape]`` in [-1, 1].
        width: width of one level.
    """
    levels = jnp.rint((x + 1) / width).astype(jnp.uint32).reshape(x.shape[0], -1)
    # Two multilinear hashes modulo 2^32 form a key of 64 bits (Carter and Wegman 1979).
    words = (levels[:, :, None] * jnp.asarray(_multipliers(levels.shape[1]))).sum(1, dtype=jnp.uint32)
    keys = jax.random.wrap_key_data(words, impl="threefry2x32")
    return sampled(x, jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys))


@functools.cache
def _multipliers(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**32, (size, 2), dtype=np.uint32) | np.uint32(1)


def dequantised(x: jax.Array, uniform: jax.Array, width: float = _LEVEL) -> jax.Array:
    """Images ``x`` in [-1, 1] plus noise that is uniform within the width of one level, centred at the level.

    Args:
        uniform: random numbers of the shape of ``x``, uniform in [0, 1).
        width: width of one level.
    """
    return x + (uniform - 0.5) * width


def log_level(size: int, width: float = _LEVEL) -> float:
    """Logarithm of the volume of one level in ``size`` dimensions: converts a log-density to a log-probability."""
    return size * float(np.log(width))
