"""Counts the FLOPs of the matrix products and convolutions of a step, and measures the time of these operations."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

# A matrix product or convolution: the primitive, the shapes and types of its operands, and its parameters.
Operation = tuple[Any, tuple, tuple]


def operations(function: Callable, *arguments: Any) -> Counter[Operation]:
    """Counts how often ``function`` executes each matrix product and convolution.

    Operations whose results are not used are left out, because the compiler removes them.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    found: Counter[Operation] = Counter()
    for equation in _equations(used):
        operands = tuple((v.aval.shape, v.aval.dtype.name) for v in equation.invars)
        found[equation.primitive, operands, tuple(sorted(equation.params.items(), key=lambda p: p[0]))] += 1
    return found


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, list | tuple) else [parameter]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)


def flops(operation: Operation) -> float:
    """The FLOPs of an operation, two for each multiply-add.

    A batch of b products of an n x k and a k x m matrix has 2 * b * n * k * m FLOPs. The FLOPs of a convolution are
    2 * number of output values * kernel height * kernel width * input channels of a group.
    """
    primitive, ((left, _), (right, _)), parameters = operation
    options = dict(parameters)
    if primitive.name == "dot_general":
        (contract, _), (batch, _) = options["dimension_numbers"]
        contracted = math.prod(left[i] for i in contract)
        shared = math.prod(left[i] for i in batch)
        return 2.0 * math.prod(left) * math.prod(right) / (contracted * shared)
    numbers = options["dimension_numbers"]
    kernel = [right[i] for i in numbers.rhs_spec]  # output channels, input channels, positions
    output = jax.eval_shape(lambda a, b: primitive.bind(a, b, **options), jnp.zeros(left), jnp.zeros(right))
    return 2.0 * math.prod(output.shape) * math.prod(kernel[1:])


def seconds_alone(found: Counter[Operation], repeats: int = 5) -> float:
    """The time in seconds of the operations in ``found`` only, which is a lower bound for the time of a step.

    Args:
        found: the operations of a step, with their counts.
        repeats: the number of measurements of each operation, whose median is used.
    """
    return sum(count * _alone(operation, repeats) for operation, count in found.items())


def _alone(operation: Operation, repeats: int) -> float:
    primitive, ((left, left_type), (right, right_type)), parameters = operation
    key = jax.random.key(0)
    operand, kernel = jax.random.normal(key, left, left_type), jax.random.normal(key, right, right_type)
    # The loop is long enough that the time to launch it is a small part of the measurement.
    length = max(3, min(200, int(1e9 / max(flops(operation), 1.0))))

    def seconds(apply: Callable[[jax.Array], jax.Array]) -> float:
        @jax.jit
        def several(operand: jax.Array) -> jax.Array:
            def body(operand: jax.Array, _: None) -> tuple[jax.Array, None]:
                # Each iteration depends on the previous result, and the barrier prevents partial computation.
                result = jax.lax.optimization_barrier(apply(operand))
                return operand.at[(0,) * operand.ndim].add(1e-9 * result.ravel()[0].astype(operand.dtype)), None

            return jax.lax.scan(body, operand, None, length=length)[0]

        several(operand).block_until_ready()
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            several(operand).block_until_ready()
            times.append((time.perf_counter() - began) / length)
        return sorted(times)[repeats // 2]

    around = seconds(lambda operand: operand)
    return seconds(lambda operand: primitive.bind(operand, kernel, **dict(parameters))) - around


def peak() -> Callable[[], float]:
    """A function that measures the peak FLOP/s of this machine with a large matrix product."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), (side, side))
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()

    def measure() -> float:
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        return 2 * side**3 / (time.perf_counter() - began)

    return measure
