"""Sums of clipped gradients of single examples, without the gradient of each example in memory where possible.

The gradient of an example with respect to the kernel of a dense layer is the outer product x dy^T of the layer's
input x and the gradient dy at the layer's output. Its squared norm is |x|^2 |dy|^2, and the weighted sum over the
examples is one matrix product (Goodfellow 2015, "Efficient per-example gradient computations"; "ghost clipping" in
Li et al. 2022, "Large language models can be strong differentially private learners", section 4). The gradients
with respect to other parameters, e.g. biases and kernels of convolutions, are computed for each example.

The dense layers are found in the jaxpr of the loss of one example, so that networks need not declare them: a
parameter is the kernel of dense layers if the loss reads it only in products with single vectors. A kernel that the
loss reads more than once, as gradient penalties do, has a gradient that is a sum of outer products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from gan_cli.engine import devices
from gan_cli.types import Tree

_BUDGET = 2**26  # largest number of bytes of the gradients of single examples that are in memory at once
_ROUNDING = 1e-5  # relative error of scalar products of up to some thousand float32 numbers
_CALLS = ("jit", "pjit", "closed_call")  # primitives that only call a jaxpr; their names depend on JAX's version


class _Constant(NamedTuple):
    """A value that the jaxpr contains."""

    value: Any


class _Operation(NamedTuple):
    """An equation of a jaxpr. A ``_Constant`` or any other object, for a variable, identifies each value."""

    equation: Any
    inputs: list[Any]
    outputs: list[Any]


class _Product(NamedTuple):
    """A product of a kernel ``[a, b]`` with one vector.

    Attributes:
        kernel: index of the kernel among the parameters.
        vector: position of the vector among the two inputs of the operation.
        axis: axis of the kernel that the product sums over.
        shape: shape of the output.
    """

    kernel: int
    vector: int
    axis: int
    shape: tuple[int, ...]


def clipped_sum(
    function: Callable[[Tree, Tree], jax.Array], params: Tree, rows: Tree, mask: jax.Array, bound: float
) -> Tree:
    """The sum over the examples in ``mask`` of the gradients of ``function``, each clipped to the norm ``bound``.

    Clipping multiplies a gradient g by min(1, bound / |g|) (Abadi et al. 2016, algorithm 1). A gradient whose norm
    is not finite counts as zero. The sums have full float32 precision on every device: products in TF32 or
    bfloat16, the defaults of GPUs and TPUs, would round clipped gradients to norms above ``bound``.

    Args:
        function: ``(params, row) -> scalar``, the loss of one example.
        params: the parameters, a pytree of arrays.
        rows: pytree of arrays ``[n, ...]``, with one row for each example.
        mask: ``[n]``, whether each example counts.
        bound: largest norm of the gradient of one example.
    """
    leaves, structure = jax.tree.flatten(params)
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
    closed = jax.make_jaxpr(lambda leaves, row: function(jax.tree.unflatten(structure, leaves), row))(leaves, row)
    program = _Program(closed, len(leaves))
    kernels = {product.kernel for product in program.products.values()}
    direct = [i for i in range(len(leaves)) if i not in kernels]

    def of_row(row: Tree) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        def value(own: list[jax.Array], probes: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
            filled = list(leaves)
            for i, leaf in zip(direct, own, strict=True):
                filled[i] = leaf
            return program([*filled, *jax.tree.leaves(row)], probes)

        own = [leaves[i] for i in direct]
        probes = [jnp.zeros(product.shape) for product in program.products.values()]
        (slopes, at_outputs), vectors = jax.grad(value, argnums=(0, 1), has_aux=True)(own, probes)
        return slopes, at_outputs, vectors

    def of_slice(rows: Tree, mask: jax.Array) -> list[jax.Array]:
        slopes, at_outputs, vectors = jax.vmap(of_row)(rows)
        factors: dict[int, list[tuple[jax.Array, jax.Array]]] = {i: [] for i in kernels}
        for product, dy, x in zip(program.products.values(), at_outputs, vectors, strict=True):
            pair = x.reshape(len(x), -1), dy.reshape(len(dy), -1)
            factors[product.kernel].append(pair if product.axis == 0 else pair[::-1])
        squared = sum((jnp.sum(g.reshape(len(g), -1) ** 2, axis=1) for g in slopes), jnp.zeros(len(mask)))
        for pairs in factors.values():
            squared += _squared_norm(pairs)
        counts = (mask > 0) & jnp.isfinite(squared)
        # The constant keeps 0 / 0 out. It is far below the norms that float32 gradients have.
        scale = jnp.where(counts, jnp.minimum(1, bound / jnp.sqrt(squared + 1e-30)), 0)

        def kept(x: jax.Array) -> jax.Array:  # zero instead of 0 * inf
            return jnp.where(counts.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)

        total: list[Any] = [None] * len(leaves)
        for i, slope in zip(direct, slopes, strict=True):
            total[i] = jnp.tensordot(scale, kept(slope), 1, precision="highest")
        for i, pairs in factors.items():
            total[i] = sum(jnp.matmul(kept(a * scale[:, None]).T, kept(b), precision="highest") for a, b in pairs)
        return total

    count = _slices(len(mask), 4 * sum(leaves[i].size for i in direct))
    if count == 1:
        return jax.tree.unflatten(structure, of_slice(rows, mask))
    # Slice i has the rows i, i + count, ..., so that each device holds an equal part of every slice.
    slices = jax.tree.map(
        lambda x: devices.split(x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), axis=1), (rows, mask)
    )

    def add(so_far: list[jax.Array], part: tuple[Tree, jax.Array]) -> tuple[list[jax.Array], None]:
        return [a + b for a, b in zip(so_far, of_slice(*part), strict=True)], None

    start = [jnp.zeros_like(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, jax.lax.scan(add, start, slices)[0])


def _squared_norm(pairs: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """The squared norm ``[n]`` of sum_k a_k b_k^T for each row of several pairs ``(a_k, b_k)``, or a bit more.

    If the outer products nearly cancel, the norm of their sum is smaller than the rounding errors of the scalar
    products, and could seem to be zero. The result is therefore enlarged by a bound of these errors.
    """
    norms = [jnp.sum(a**2, axis=1) * jnp.sum(b**2, axis=1) for a, b in pairs]
    if len(pairs) == 1:
        return norms[0]
    products = sum(jnp.sum(a * c, axis=1) * jnp.sum(b * d, axis=1) for a, b in pairs for c, d in pairs)
    return jnp.maximum(products, 0) + _ROUNDING * sum(map(jnp.sqrt, norms)) ** 2


def _slices(rows: int, size: int) -> int:
    """The smallest number of equal slices of ``rows`` examples whose gradients of ``size`` bytes fit the budget.

    Each slice can be divided over the devices.
    """
    unit = devices.count()
    most = max(_BUDGET // max(size, 1), unit)
    return next(n for n in range(1, rows + 1) if rows % n == 0 and (rows // n) % unit == 0 and rows // n <= most)


def origins(closed: ClosedJaxpr) -> list[int | set[int]]:
    """For each output of a jaxpr, the number of the input that it is, or the numbers of the inputs it depends on.

    An output depends on an input if an operation that leads to the output has the input among its arguments.
    Operations with inner jaxprs, e.g. loops, count as one operation.
    """
    inputs = [object() for _ in closed.jaxpr.invars]
    operations, outputs = _inlined(closed, inputs)
    numbers = {id(one): i for i, one in enumerate(inputs)}
    found = {id(one): {i} for i, one in enumerate(inputs)}
    for operation in operations:
        read = set[int]().union(*(found.get(id(value), set()) for value in operation.inputs))
        found |= {id(value): read for value in operation.outputs}
    return [numbers.get(id(one), found.get(id(one), set())) for one in outputs]


class _Program:
    """The loss of one example as a list of operations without those that the loss does not depend on.

    Args:
        closed: the jaxpr of the loss. Its first ``params`` inputs are the parameters.

    Attributes:
        products: mapping from the positions of the products of kernels and single vectors to their descriptions.
    """

    def __init__(self, closed: ClosedJaxpr, params: int):
        self._inputs: list[Any] = [object() for _ in closed.jaxpr.invars]
        operations, (self._output,) = _inlined(closed, self._inputs)
        self._operations = _alive(operations, self._output)
        self.products = self._products(self._inputs[:params])

    def _products(self, params: Sequence[Any]) -> dict[int, _Product]:
        found: dict[int, _Product] = {}
        for i, param in enumerate(params):
            uses = [n for n, operation in enumerate(self._operations) if param in operation.inputs]
            products = [_product(self._operations[n], param, i) for n in uses]
            if uses and param is not self._output:
                every = {n: product for n, product in zip(uses, products, strict=True) if product is not None}
                found |= every if len(every) == len(uses) else {}
        return dict(sorted(found.items()))

    def __call__(
        self, values: Sequence[jax.Array], probes: Sequence[jax.Array]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """A pair: the loss, and the vector of each product. ``probes`` are added to the outputs of the products."""
        known: dict[Any, Any] = dict(zip(self._inputs, values, strict=True))
        waiting, vectors = iter(probes), []

        def read(value: Any) -> Any:
            return value.value if isinstance(value, _Constant) else known[value]

        for n, (equation, inputs, outputs) in enumerate(self._operations):
            options = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*map(read, inputs), **options)
            results = results if equation.primitive.multiple_results else [results]
            if n in self.products:
                vectors.append(read(inputs[self.products[n].vector]))
                results = [results[0] + next(waiting)]
            known.update(zip(outputs, results, strict=True))
        return read(self._output), vectors


def _inlined(closed: ClosedJaxpr, inputs: Sequence[Any]) -> tuple[list[_Operation], list[Any]]:
    """The operations of a jaxpr and of all jaxprs that it calls, and the outputs."""
    jaxpr = closed.jaxpr
    names: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_Constant, closed.consts), strict=True))
    names |= dict(zip(jaxpr.invars, inputs, strict=True))

    def name(atom: Any) -> Any:
        return _Constant(atom.val) if isinstance(atom, Literal) else names[atom]

    operations: list[_Operation] = []
    for equation in jaxpr.eqns:
        given = [name(atom) for atom in equation.invars]
        if equation.primitive.name in _CALLS:
            more, outputs = _inlined(equation.params.get("jaxpr") or equation.params["call_jaxpr"], given)
            operations += more
        else:
            outputs = [object() for _ in equation.outvars]
            operations.append(_Operation(equation, given, outputs))
        names.update(zip(equation.outvars, outputs, strict=True))
    return operations, [name(atom) for atom in jaxpr.outvars]


def _alive(operations: Iterable[_Operation], output: Any) -> list[_Operation]:
    """The operations on which ``output`` depends."""
    needed, found = {id(output)}, []
    for operation in reversed(list(operations)):
        if any(id(value) in needed for value in operation.outputs):
            needed |= {id(value) for value in operation.inputs}
            found.append(operation)
    return found[::-1]


def _product(operation: _Operation, kernel: Any, index: int) -> _Product | None:
    """The description of an operation that multiplies ``kernel`` by one vector. None for any other operation."""
    equation = operation.equation
    if equation.primitive.name != "dot_general" or operation.inputs[0] is operation.inputs[1]:
        return None
    contracted, batched = equation.params["dimension_numbers"]
    side = next(i for i, value in enumerate(operation.inputs) if value is kernel)
    matrix, other = equation.invars[side].aval, equation.invars[1 - side].aval
    axes = contracted[side]
    if any(batched) or matrix.ndim != 2 or len(axes) != 1 or math.prod(other.shape) != matrix.shape[axes[0]]:
        return None
    return _Product(index, 1 - side, axes[0], equation.outvars[0].aval.shape)
