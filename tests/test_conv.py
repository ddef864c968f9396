"""The hand-written convolutions equal JAX's in value, gradient and second derivative."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_cli.models import conv

CASES = [  # kernel, stride, height, width
    (4, 2, 8, 8),
    (4, 2, 14, 10),
    (3, 1, 7, 5),
    (3, 2, 8, 6),
    (5, 2, 9, 7),
    (1, 1, 4, 4),
    (1, 2, 6, 6),
    (2, 3, 9, 6),
    (3, 1, 9, 10),
    (4, 2, 18, 20),
]


def native_conv(x, kernel, stride):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def native_transpose(x, kernel, stride):
    shape = (x.shape[0], x.shape[1] * stride, x.shape[2] * stride, kernel.shape[2])
    return jax.linear_transpose(lambda y: native_conv(y, kernel, stride), jax.ShapeDtypeStruct(shape, x.dtype))(x)[
        0
    ]


PAIRS = [(conv.conv, native_conv), (conv.conv_transpose, native_transpose)]


@pytest.mark.parametrize(("kernel", "stride", "height", "width"), CASES)
@pytest.mark.parametrize("pair", PAIRS, ids=["conv", "conv_transpose"])
@pytest.mark.parametrize("inputs", [3, 6])
def test_equals_native(inputs, pair, kernel, stride, height, width):
    """The cases cover each form of the weight gradient, which depends on channels and image size."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, height, width, inputs)), jnp.float32)
    channels = (inputs, inputs + 1) if pair[0] is conv.conv else (inputs + 1, inputs)
    w = jnp.array(rng.normal(size=(kernel, kernel, *channels)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)  # without jit, each operation is compiled
    def derivatives(function, x, w):
        def value(x, w):
            return jnp.sum(jnp.tanh(function(x, w, stride)))

        def penalty(x, w):  # a gradient penalty: its gradient needs second derivatives of the convolution
            return jnp.sum(jax.grad(value)(x, w) ** 2)

        return function(x, w, stride), jax.grad(value, (0, 1))(x, w), jax.grad(penalty, (0, 1))(x, w)

    ours, native = (derivatives(function, x, w) for function in pair)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(native), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize("function", [conv.conv, conv.conv_transpose])
def test_native_form_on_other_back_ends(function, monkeypatch):
    """GPU and TPU use the native form; this test compares both forms on the CPU."""
    x, w = jnp.ones((1, 6, 6, 2)), jnp.arange(64.0).reshape(4, 4, 2, 2)
    ours = function(x, w, 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jaxpr = str(jax.make_jaxpr(lambda x, w: function(x, w, 2))(x, w))
    assert "custom_vjp" not in jaxpr
    np.testing.assert_allclose(function(x, w, 2), ours, rtol=1e-5)


def test_under_vmap():
    x, w = jnp.arange(3 * 2 * 4 * 4 * 2.0).reshape(3, 2, 4, 4, 2) / 100, jnp.ones((3, 4, 4, 2, 3))

    def gradient(x, w):
        return jax.grad(lambda w: (conv.conv(x, w, 2) ** 2).sum())(w)

    together = jax.vmap(gradient)(x, w)
    np.testing.assert_allclose(together, jnp.stack([gradient(a, b) for a, b in zip(x, w, strict=True)]), rtol=1e-5)
