"""Two nodes that one can do: runtimes do not look for these themselves."""

from __future__ import annotations

from collections.abc import Sequence
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
