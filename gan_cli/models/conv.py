"""Convolutions that stay fast inside a compiled loop on a CPU.

The weight gradient that automatic differentiation makes of a convolution has unusual dimension numbers. Inside
a ``lax.scan`` XLA's CPU back end folds them into layouts that its fast kernel does not take, and falls to a
loop that is about 100 times slower. Here a convolution, its input gradient and its weight gradient are three
functions with plain layouts, each linear in both arguments, each with its derivatives given by the other two:
so derivatives of any order (gradient penalties need the second) are plain as well. On other back ends the
native form is used. Layouts are NHWC for images and HWIO for kernels; padding is SAME, as XLA defines it.
``custom_vjp`` has no forward mode: take Hessian-vector products as reverse over reverse.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]
Size = tuple[int, ...]


def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Cross-correlation with SAME padding: ``[n, h, w, in]`` -> ``[n, ceil(h/stride), ceil(w/stride), out]``."""
    pads = _same(x.shape[1:3], kernel.shape[:2], stride)
    if jax.default_backend() == "cpu":
        return _conv(x, kernel, stride, pads)
    return _native(x, kernel, stride, pads)


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The input gradient of ``conv``, used forwards: ``[n, h, w, in]`` -> ``[n, h*stride, w*stride, out]``.

    The kernel is that of the convolution it transposes: ``[kh, kw, out, in]``.
    """
    size = (x.shape[1] * stride, x.shape[2] * stride)
    pads = _same(size, kernel.shape[:2], stride)
    if jax.default_backend() == "cpu":
        return _input_grad(x, kernel, stride, pads, size)
    return _dilated_input_grad(x, kernel, stride, pads, size)


def _same(size: Size, kernel: Size, stride: int) -> Pads:
    pads = []
    for n, k in zip(size, kernel, strict=True):
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)  # type: ignore[return-value]


def _native(x, kernel, stride, pads):
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


# Each function's non-differentiable arguments come last. All three are bilinear, so a derivative is another of
# the three: d<dy, conv(x, w)> = <input_grad(dy, w), dx> + <weight_grad(x, dy), dw>, and so on round.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, stride, pads):
    return _native(x, kernel, stride, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _input_grad(dy, kernel, stride, pads, size):
    if size[0] % stride or size[1] % stride:
        return _dilated_input_grad(dy, kernel, stride, pads, size)
    return _phased_input_grad(dy, kernel, stride, pads, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _weight_grad(x, dy, stride, pads, size):
    # All three are the same sum. As a convolution its kernel is as large as dy, and XLA's CPU code for it is up to
    # five times slower than products of matrices once that is larger than 8x8.
    if x.shape[-1] <= 4:
        return _weight_grad_of_patches(x, dy, stride, pads, size)
    if dy.shape[1] * dy.shape[2] > 64:
        return _weight_grad_by_place(x, dy, stride, pads, size)
    return _weight_grad_as_conv(x, dy, stride, pads, size)


def _weight_grad_of_patches(x, dy, stride, pads, size):
    """One product of all patches with all output gradients."""
    patches = jnp.concatenate(_shifted(x, dy, stride, pads, size), axis=-1)
    return _product(patches, dy).reshape(*size, x.shape[-1], dy.shape[-1])


def _weight_grad_by_place(x, dy, stride, pads, size):
    """A product for each of the kernel's places."""
    products = [_product(part, dy) for part in _shifted(x, dy, stride, pads, size)]
    return jnp.stack(products).reshape(*size, x.shape[-1], dy.shape[-1])


def _shifted(x, dy, stride, pads, size):
    """For each of the kernel's places what it meets: ``[n, oh, ow, in]``."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)))
    n, rows, columns, _ = dy.shape
    ends = [(count - 1) * stride + 1 for count in (rows, columns)]
    return [
        lax.slice(padded, (0, i, j, 0), (n, i + ends[0], j + ends[1], x.shape[-1]), (1, stride, stride, 1))
        for i in range(size[0])
        for j in range(size[1])
    ]


def _product(x, dy):
    rows, gradients = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return lax.dot_general(rows, gradients, (((0,), (0,)), ((), ())))


def _weight_grad_as_conv(x, dy, stride, pads, size):
    # Channels as the batch, the output gradient as the kernel. Rows of x that no window reaches are cut off.
    ends = [
        (low, (n - 1) * stride + k - low - h)
        for h, n, k, (low, _) in zip(x.shape[1:3], dy.shape[1:3], size, pads, strict=True)
    ]
    out = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        ends,
        rhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
    return out.transpose(1, 2, 0, 3)


_conv.defvjp(
    lambda x, kernel, stride, pads: (_native(x, kernel, stride, pads), (x, kernel)),
    lambda stride, pads, saved, dy: (
        _input_grad(dy, saved[1], stride, pads, saved[0].shape[1:3]),
        _weight_grad(saved[0], dy, stride, pads, saved[1].shape[:2]),
    ),
)
_input_grad.defvjp(
    lambda dy, kernel, stride, pads, size: (_input_grad(dy, kernel, stride, pads, size), (dy, kernel)),
    lambda stride, pads, size, saved, dx: (
        _conv(dx, saved[1], stride, pads),
        _weight_grad(dx, saved[0], stride, pads, saved[1].shape[:2]),
    ),
)
_weight_grad.defvjp(
    lambda x, dy, stride, pads, size: (_weight_grad(x, dy, stride, pads, size), (x, dy)),
    lambda stride, pads, size, saved, dw: (
        _input_grad(saved[1], dw, stride, pads, saved[0].shape[1:3]),
        _conv(saved[0], dw, stride, pads),
    ),
)


def _dilated_input_grad(dy, kernel, stride, pads, size):
    """The textbook form: the output gradient spread out by the stride, against the flipped kernel."""
    ends = [
        (k - 1 - low, n - 1 - (o - 1) * stride + low)
        for n, o, k, (low, _) in zip(size, dy.shape[1:3], kernel.shape[:2], pads, strict=True)
    ]
    return lax.conv_general_dilated(
        dy,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        ends,
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )


def _phased_input_grad(dy, kernel, stride, pads, size):
    """The same without the zeros: one small convolution for each of the stride^2 output phases, interleaved."""
    flipped = kernel.swapaxes(2, 3)

    def taps(phase: int, k: int, low: int, n: int, o: int) -> tuple[slice, tuple[int, int]]:
        # Output i gets dy[j] * kernel[t] where j * stride + t - low = i: the taps t of one residue class.
        first = (phase + low) % stride
        count = len(range(first, k, stride))
        start = (phase + low - first) // stride
        return slice(first, None, stride), (count - 1 - start, start + n // stride - o)

    rows = [taps(p, kernel.shape[0], pads[0][0], size[0], dy.shape[1]) for p in range(stride)]
    columns = [taps(p, kernel.shape[1], pads[1][0], size[1], dy.shape[2]) for p in range(stride)]
    n, out = dy.shape[0], kernel.shape[2]
    phases = []
    for row, row_pad in rows:
        for column, column_pad in columns:
            part = flipped[row, column][::-1, ::-1]
            if part.size == 0:  # a kernel narrower than the stride leaves gaps
                phases.append(jnp.zeros((n, size[0] // stride, size[1] // stride, out), dy.dtype))
                continue
            phases.append(
                lax.conv_general_dilated(dy, part, (1, 1), (row_pad, column_pad), dimension_numbers=_LAYOUT)
            )
    grid = jnp.stack(phases).reshape(stride, stride, n, size[0] // stride, size[1] // stride, out)
    return grid.transpose(2, 3, 0, 4, 1, 5).reshape(n, *size, out)
