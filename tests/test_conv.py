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


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "size"),
    [(4, 2, 1, 7), (3, 2, 1, 8), (4, 1, 1, 6), (7, 1, 0, 9), (4, 1, 1, 3), (4, 2, 1, 2)],
)
@pytest.mark.parametrize("inputs", [2, 5])
def test_explicit_padding(inputs, kernel, stride, pad, size):
    """The derivatives of a convolution with the paddings of PyTorch equal JAX's."""
    rng, pads = np.random.default_rng(0), ((pad, pad), (pad, pad))
    x = jnp.array(rng.normal(size=(2, size, size, inputs)), jnp.float32)
    w = jnp.array(rng.normal(size=(kernel, kernel, inputs, 3)), jnp.float32)

    def native(x, w, stride, pads):
        return lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(function):
        return function(x, w, stride, pads), jax.grad(
            lambda *a: jnp.tanh(function(*a, stride, pads)).sum(), (0, 1)
        )(x, w)

    for a, b in zip(jax.tree.leaves(derivatives(conv.conv)), jax.tree.leaves(derivatives(native)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_transposed_convolution_with_explicit_padding():
    """A 3x3 transposed convolution with padding 1 is the adjoint of the convolution that halves."""
    rng, pads = np.random.default_rng(0), ((1, 1), (1, 1))
    x, y = (jnp.array(rng.normal(size=shape), jnp.float32) for shape in ((1, 8, 6, 2), (1, 4, 3, 3)))
    w = jnp.array(rng.normal(size=(3, 3, 2, 3)), jnp.float32)
    product = (conv.conv(x, w, 2, pads) * y).sum()
    np.testing.assert_allclose((conv.conv_transpose(y, w, 2, pads) * x).sum(), product, rtol=1e-4)
