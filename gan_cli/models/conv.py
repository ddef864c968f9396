"""Convolutions that run fast inside a compiled loop on a CPU.

Automatic differentiation expresses the weight gradient of a convolution with permuted dimension numbers. Inside a
``lax.scan``, XLA's CPU back end turns the permutation into array layouts that the fast convolution routine does not
support. XLA then uses a routine that is about 100 times slower.

This module therefore defines a convolution, its input gradient and its weight gradient as three functions. In these
functions, images have the layout NHWC and kernels have the layout HWIO. Each function is linear in each of its two
array arguments, and its derivatives are the other two functions. Derivatives of every order therefore keep these
layouts, including the second derivatives that gradient penalties need. On back ends other than the CPU, the module
uses ``lax.conv_general_dilated`` and JAX's derivatives of this function.

Without explicit padding, all functions use SAME padding as defined by XLA. ``custom_vjp`` does not support
forward-mode differentiation, so Hessian-vector products are computed with reverse mode over reverse mode.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]
Size = tuple[int, ...]


def conv(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads | None = None) -> jax.Array:
    """Cross-correlation.

    Args:
        x: ``[n, h, w, in]``.
        kernel: ``[kh, kw, in, out]``.
        stride: distance in pixels by which the kernel moves along height and width.
        pads: zeros added ``((above, below), (left, right))``. With None, the padding is SAME.

    Returns:
        With SAME padding, ``[n, ceil(h / stride), ceil(w / stride), out]``.
    """
    pads = pads or _same(x.shape[1:3], kernel.shape[:2], stride)
    if jax.default_backend() == "cpu":
        return _conv(x, kernel, stride, pads)
    return _native(x, kernel, stride, pads)


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads | None = None) -> jax.Array:
    """Transposed convolution: the input gradient of ``conv``.

    Args:
        x: ``[n, h, w, in]``.
        kernel: ``[kh, kw, out, in]``, the kernel of the ``conv`` whose input gradient is computed. This ``conv``
            maps ``out`` channels to ``in`` channels.
        stride: factor by which height and width increase.
        pads: padding of the ``conv``, which must map height ``h * stride`` to ``h``. With None, the padding is
            SAME.

    Returns:
        ``[n, h * stride, w * stride, out]``.
    """
    size = (x.shape[1] * stride, x.shape[2] * stride)
    pads = pads or _same(size, kernel.shape[:2], stride)
    if jax.default_backend() == "cpu":
        return _input_grad(x, kernel, stride, pads, size)
    return _dilated_input_grad(x, kernel, stride, pads, size)


def _same(size: Size, kernel: Size, stride: int) -> Pads:
    def pad(n: int, k: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        return total // 2, total - total // 2

    (height, width), (rows, columns) = size, kernel
    return pad(height, rows), pad(width, columns)


def _native(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


def _fast(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """``_native``, computed as one matrix product if the kernel is larger than the input.

    For such kernels, XLA's CPU back end uses a routine that is 10 to 30 times slower.
    """
    size = kernel.shape[:2]
    if size[0] <= x.shape[1] and size[1] <= x.shape[2]:
        return _native(x, kernel, stride, pads)
    rows, columns = (
        (n + low + high - k) // stride + 1 for n, k, (low, high) in zip(x.shape[1:3], size, pads, strict=True)
    )
    patches = jnp.concatenate(_shifted(x, (rows, columns), stride, pads, size), axis=-1)
    out = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return out.reshape(x.shape[0], rows, columns, kernel.shape[-1])


# The non-differentiable arguments of each function come last. ``_conv``, ``_input_grad`` and ``_weight_grad`` are
# bilinear, so the other two functions compute the derivatives of each function. For the convolution,
# d<dy, conv(x, w)> = <input_grad(dy, w), dx> + <weight_grad(x, dy), dw>.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    return _fast(x, kernel, stride, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _input_grad(dy: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    if size[0] % stride == 0 and size[1] % stride == 0:
        return _phased_input_grad(dy, kernel, stride, pads, size)
    # The phases have equal sizes only if height and width are multiples of the stride.
    rounded = tuple(-(-n // stride) * stride for n in size)
    return _phased_input_grad(dy, kernel, stride, pads, rounded)[:, : size[0], : size[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _weight_grad(x: jax.Array, dy: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    # All four branches compute the same gradient. ``_weight_grad_as_conv`` uses dy as the kernel of a convolution.
    # If dy has more than 64 pixels, XLA's CPU code for this convolution is up to five times slower than matrix
    # products.
    if size[1] > 5 and stride == 1:
        return _weight_grad_by_row(x, dy, pads, size)
    if x.shape[-1] <= 4:
        return _weight_grad_of_patches(x, dy, stride, pads, size)
    if dy.shape[1] * dy.shape[2] > 64:
        return _weight_grad_by_place(x, dy, stride, pads, size)
    # XLA's CPU code for this convolution is up to 1.2 times faster for 64 output channels at a time.
    starts = range(0, dy.shape[-1], 64)
    parts = [_weight_grad_as_conv(x, dy[..., start : start + 64], stride, pads, size) for start in starts]
    return jnp.concatenate(parts, axis=-1)


def _weight_grad_of_patches(x: jax.Array, dy: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The weight gradient, computed as one matrix product of all input patches and all output gradients."""
    patches = jnp.concatenate(_shifted(x, dy.shape[1:3], stride, pads, size), axis=-1)
    return _product(patches, dy).reshape(*size, x.shape[-1], dy.shape[-1])


def _weight_grad_by_place(x: jax.Array, dy: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The weight gradient, computed with one matrix product for each kernel tap."""
    products = [_product(part, dy) for part in _shifted(x, dy.shape[1:3], stride, pads, size)]
    return jnp.stack(products).reshape(*size, x.shape[-1], dy.shape[-1])


def _weight_grad_by_row(x: jax.Array, dy: jax.Array, pads: Pads, size: Size) -> jax.Array:
    """The weight gradient for stride 1, computed with one matrix product for each kernel row.

    Wide kernels have few input or few output channels. One matrix product for each kernel tap would then have very
    narrow matrices. The copies of ``x`` or of ``dy`` that are shifted by the kernel columns form its channels.
    """
    padded = _padded(x, pads)
    (rows, columns), (height, width) = dy.shape[1:3], size
    if x.shape[-1] <= dy.shape[-1]:
        shifted = jnp.concatenate([padded[:, :, j : j + columns] for j in range(width)], axis=-1)
        products = [_product(shifted[:, i : i + rows], dy) for i in range(height)]
        return jnp.stack(products).reshape(height, width, x.shape[-1], dy.shape[-1])
    padded = padded[:, :, : columns + width - 1]
    shifted = jnp.concatenate([_padded(dy, ((0, 0), (j, width - 1 - j))) for j in range(width)], axis=-1)
    products = [_product(padded[:, i : i + rows], shifted) for i in range(height)]
    return jnp.stack(products).reshape(height, x.shape[-1], width, dy.shape[-1]).swapaxes(1, 2)


def _padded(x: jax.Array, pads: Pads) -> jax.Array:
    """Images ``x`` with zeros at their borders."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)))


def _shifted(x: jax.Array, output: Size, stride: int, pads: Pads, size: Size) -> list[jax.Array]:
    """A list of arrays ``[n, oh, ow, in]``: for each kernel tap, the input values that the tap multiplies.

    Kernel tap (i, j) is the kernel entry in row i and column j. The list contains the kernel taps in row-major
    order. ``output`` is (oh, ow), the height and width of the output. ``size`` is that of the kernel.
    """
    padded = _padded(x, pads)
    n, (rows, columns) = x.shape[0], output
    ends = [(count - 1) * stride + 1 for count in (rows, columns)]
    return [
        lax.slice(padded, (0, i, j, 0), (n, i + ends[0], j + ends[1], x.shape[-1]), (1, stride, stride, 1))
        for i in range(size[0])
        for j in range(size[1])
    ]


def _product(x: jax.Array, dy: jax.Array) -> jax.Array:
    rows, gradients = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return lax.dot_general(rows, gradients, (((0,), (0,)), ((), ())))


def _weight_grad_as_conv(x: jax.Array, dy: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The weight gradient, computed as a convolution whose kernel is the output gradient.

    In this convolution, the batch axis and the channel axis of ``x`` exchange their roles.
    """
    # Negative padding removes the rows and columns of x that the forward convolution does not use.
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
    lambda x, kernel, stride, pads: (_fast(x, kernel, stride, pads), (x, kernel)),
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


def _dilated_input_grad(dy: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The textbook input gradient: the dilated output gradient, convolved with the flipped kernel.

    ``size`` is the height and width of the input gradient.
    """
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


def _phased_input_grad(dy: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The same input gradient as ``_dilated_input_grad``, computed without multiplications by zero.

    The pixels of the input gradient form stride^2 phases. Two pixels belong to the same phase if their row indices
    are equal modulo the stride and their column indices are equal modulo the stride. For each phase, one
    convolution of ``dy`` with the kernel taps that contribute to the phase computes all pixels of the phase. The
    phases are then interleaved.

    ``size`` is the height and width of the input gradient. Both must be multiples of ``stride``.
    """
    flipped = kernel.swapaxes(2, 3)

    def taps(phase: int, k: int, low: int, n: int, o: int) -> tuple[slice, tuple[int, int]]:
        # Along one axis, entry i of the input gradient is the sum of dy[j] * kernel[t] over all j and t with
        # j * stride + t - low = i. The kernel taps t of one phase therefore form one residue class modulo the
        # stride.
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
            if part.size == 0:  # no kernel tap contributes, because the kernel is narrower than the stride
                phases.append(jnp.zeros((n, size[0] // stride, size[1] // stride, out), dy.dtype))
                continue
            phases.append(_fast(dy, part, 1, (row_pad, column_pad)))
    grid = jnp.stack(phases).reshape(stride, stride, n, size[0] // stride, size[1] // stride, out)
    return grid.transpose(2, 3, 0, 4, 1, 5).reshape(n, *size, out)
