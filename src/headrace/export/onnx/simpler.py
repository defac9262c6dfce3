"""Several nodes that one can do: runtimes do not look for these themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.export.onnx.graph import Graph, Shape, Value, constant, is_symbol


def broadcast(given: Sequence[Value]) -> Shape:
    """Return the shape of what several values are broadcast to."""
    return broadcast_shapes([value.shape for value in given])


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that all of several are broadcast to, as numpy does."""
    axes = max(map(len, shapes))
    filled = [(1,) * (axes - len(shape)) + shape for shape in shapes]
    return tuple(map(_largest, zip(*filled, strict=True)))


def _largest(sizes: Sequence[Any]) -> Any:
    symbols = [size for size in sizes if is_symbol(size)]
    return symbols[0] if symbols else max(sizes)


def scaled(graph: Graph, given: list[Value]) -> list[Value]:
    """Return what is to be multiplied: by two numbers, one after the other, by both at once."""
    by = [value for value in given if value.array is not None and value.array.size == 1]
    others = [value for value in given if value.array is None]
    made = graph.maker_of(others[0]) if by and others else None
    if made is None or made.op_type != "Mul" or others[0].shape != broadcast(given):
        return given
    for first, second in (made.input, [*made.input][::-1]):
        if (number := graph.single(second)) is not None and graph.single(first) is None:
            factor = constant(by[0].array * np.asarray(number), by[0].dtype)
            if graph.shape_of(first) == others[0].shape:
                return [Value(first, others[0].shape, others[0].dtype), factor]
    return given


def extreme(graph: Graph, which: Value, yes: Value, no: Value) -> str | None:
    """Say whether a choice is that of the lesser or the greater of two, of which none is NaN."""
    made = graph.maker_of(which)
    if made is None or made.op_type not in ("Less", "Greater"):
        return None
    one, other = made.input
    straight = graph.is_same(one, yes) and graph.is_same(other, no)
    if not straight and not (graph.is_same(one, no) and graph.is_same(other, yes)):
        return None
    return "Min" if (made.op_type == "Less") == straight else "Max"


def least(graph: Graph, halved: Value) -> Value | None:
    """Return the least along the last axis, if a value is that: halves against each other."""
    found, size = halved.name, 1
    while (before := _halved(graph, found, size)) is not None:
        found, size = before
    if size <= 2:
        return None
    whole = Value(found, graph.shape_of(found) or (), halved.dtype)
    axis = constant(np.array([len(whole.shape) - 1]))
    return graph.op("ReduceMin", [whole, axis], halved.shape, halved.dtype, keepdims=1)


def _halved(graph: Graph, name: str, size: int) -> tuple[str, int] | None:
    """Return of what a value of a size has the lesser of each two numbers, and its size."""
    made, rest = graph.maker(name), []
    if made is not None and made.op_type == "Concat":
        first, *rest = made.input
        made = graph.maker(first)
    if made is None or made.op_type != "Min" or len(rest) > 1:
        return None
    makers = [graph.maker(each) for each in (*made.input, *rest)]
    parts = [part for part in makers if part is not None and part.op_type == "Slice"]
    if len(parts) < len(makers):
        return None
    of = {part.input[0] for part in parts}
    half = size - len(rest)
    ends = [0, half, 2 * half, 2 * half + len(rest)]
    cut = [[graph.single(each) for each in part.input[1:3]] for part in parts]
    wanted = [[start, end] for start, end in pairwise(ends) if start < end]
    source = parts[0].input[0]
    shape = graph.shape_of(source)
    if len(of) > 1 or cut != wanted or shape is None or shape[-1] != ends[-1]:
        return None
    return source, ends[-1]


def product_less(graph: Graph, given: Sequence[Value], shape: Shape, dtype: Any) -> Value | None:
    """Return what is left of a matrix without a product of two others, in one pass."""
    whole, product = given
    made = graph.maker_of(product)
    if made is None or made.op_type != "MatMul" or len(shape) != 2 or np.dtype(dtype).kind != "f":
        return None
    if tuple(whole.shape) != tuple(shape) != () or tuple(product.shape) != tuple(shape):
        return None
    sides = [Value(name, (), product.dtype) for name in made.input]
    return graph.op("Gemm", [*sides, whole], shape, dtype, alpha=-1.0, beta=1.0)


def fall(graph: Graph, rest: Value) -> Value | None:
    """Return max(rest, 0) in one pass, if a rest is 1 - c x: x is how far all are above the least.

    Of what is never negative, since the pass makes 1 of what is more, too.
    """
    made = graph.maker_of(rest)
    if made is None or made.op_type != "Sub" or graph.single(made.input[0]) != 1.0:
        return None
    scaled = graph.maker(made.input[1])
    if scaled is None or scaled.op_type != "Mul":
        return None
    above, factor = graph.maker(scaled.input[0]), graph.single(scaled.input[1])
    if above is None or above.op_type != "Sub" or factor is None or factor < 0.0:
        return None
    lowest = graph.maker(above.input[1])
    if lowest is None or lowest.op_type != "ReduceMin" or lowest.input[0] != above.input[0]:
        return None
    apart = Value(scaled.input[0], rest.shape, rest.dtype)
    return graph.op("HardSigmoid", [apart], rest.shape, rest.dtype, alpha=-factor, beta=1.0)
