"""Looking things up: JAX's gather, and those scatters that replace all there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.export.onnx.arrays import cut
from headrace.export.onnx.graph import (
    Graph,
    Value,
    constant,
    integers,
    is_one,
    is_same_size,
    is_symbol,
)
from headrace.export.onnx.primitives import RULES, clamp, reshaped, transposed
from headrace.export.onnx.simpler import broadcast


def _gather(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    """Look up by places in the operand laid flat, but for what is taken whole at its end.

    An index out of bounds takes the nearest place, whatever the mode: in ours none is.
    """
    out = outputs[0]
    given, shapes, params = _without_copies(graph, given, shapes, params)
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    indices, index_shape = given[1], shapes[1]
    whole = [at for at, size in enumerate(sizes) if not is_same_size(size, shapes[0][at])]
    if len(numbers.start_index_map) == 1 and not numbers.operand_batching_dims:
        (axis,) = numbers.start_index_map
        if whole in ([], [axis]) and numbers.collapsed_slice_dims == (axis,):
            return _along(graph, given, shapes, axis, numbers.offset_dims, out)
    if len(index_shape) == 1 and indices.array is not None:
        return _part(graph, given, shapes, params)
    operand = graph.whole(given[0], shapes[0])
    rank, batches = len(shapes[0]), [*numbers.operand_batching_dims]
    indexed = [*numbers.start_index_map]
    gone = {*numbers.collapsed_slice_dims, *batches}
    kept = rank  # axes from here on are taken whole
    while (
        kept
        and kept - 1 not in (*indexed, *batches, *gone)
        and (sizes[kept - 1] == shapes[0][kept - 1])
    ):
        kept -= 1
    strides, size = [0] * kept, 1
    for at in reversed(range(kept)):
        strides[at] = size
        size = size * shapes[0][at]
    # the places' axes: those of the indices, then those of the axes of slices
    lookup = len(index_shape) - 1
    windows = [at for at in range(kept) if at not in gone]
    axes = lookup + len(windows)
    place: Value | None = None

    def add(more: Value) -> None:
        nonlocal place
        if place is None:
            place = more
            return
        if place.array is not None and more.array is not None:
            place = constant(place.array + more.array, np.int64)
            return
        place = graph.op("Add", [place, more], broadcast([place, more]), np.int64)

    for k, at in enumerate(indexed):
        starts, ends = [0] * lookup + [k], [*index_shape[:-1], k + 1]
        one = cut(graph, indices, index_shape, starts, ends, [1] * len(starts))
        one = graph.cast(graph.reshape(one, (*one.shape[:-1], *[1] * len(windows))), np.int64)
        one = clamp(graph, integers(0), one, integers(int(shapes[0][at]) - int(sizes[at])))
        if at < kept:
            step = integers(strides[at])
            add(graph.op("Mul", [one, step], one.shape, np.int64) if strides[at] != 1 else one)
    for axis, at in zip(numbers.start_indices_batching_dims, batches, strict=True):
        shape = [1] * axes
        shape[axis] = shapes[0][at]
        rows = graph.row_numbers() if is_symbol(shapes[0][at]) else None
        numbered = rows or constant(np.arange(shapes[0][at]), np.int64)
        step = integers(strides[at])
        spread = graph.reshape(numbered, tuple(shape))
        add(graph.op("Mul", [spread, step], spread.shape, np.int64))
    for number, at in enumerate(windows):
        shape = [1] * axes
        shape[lookup + number] = sizes[at]
        if sizes[at] > 1:
            add(constant(np.arange(sizes[at]).reshape(shape) * strides[at], np.int64))
    tail = shapes[0][kept:]
    flat = graph.reshape(operand, (size, *tail))
    if place is None:
        raise NotImplementedError("a look-up at no place has no translation to ONNX")
    index_sizes = [*index_shape[:-1], *[sizes[at] for at in windows]]
    places = graph.whole(place, tuple(index_sizes)) if lookup else place
    found = graph.op("Gather", [flat, places], (*places.shape, *tail), out.dtype, axis=0)
    return _ordered(graph, found, numbers.offset_dims, out)


def _without_copies(
    graph: Graph, given: list[Value], shapes: Any, params: Any
) -> tuple[list[Value], Any, Any]:
    """Look up in one array what is looked up in a copy of it for each row."""
    numbers = params["dimension_numbers"]
    copied = [at for at in numbers.operand_batching_dims if is_one(given[0].shape[at])]
    if not copied:
        return given, shapes, params

    def left(axes: Sequence[int]) -> tuple[int, ...]:
        return tuple(at - sum(gone < at for gone in copied) for at in axes if at not in copied)

    pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    changed = numbers._replace(
        collapsed_slice_dims=left(numbers.collapsed_slice_dims),
        operand_batching_dims=left(numbers.operand_batching_dims),
        start_indices_batching_dims=tuple(of for at, of in pairs if at not in copied),
        start_index_map=left(numbers.start_index_map),
    )
    kept = [at for at in range(len(shapes[0])) if at not in copied]
    operand = graph.reshape(given[0], tuple(given[0].shape[at] for at in kept))
    sizes = tuple(params["slice_sizes"][at] for at in kept)
    whole = tuple(shapes[0][at] for at in kept)
    return (
        [operand, given[1]],
        [whole, shapes[1]],
        params | {"dimension_numbers": changed, "slice_sizes": sizes},
    )


def _part(graph: Graph, given: list[Value], shapes: Any, params: Any) -> Value:
    """Cut out the part that begins at places that are known."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    starts, ends = [0] * len(sizes), [*shapes[0]]
    known = np.broadcast_to(np.asarray(given[1].array), shapes[1])
    for at, start in zip(numbers.start_index_map, known.tolist(), strict=True):
        starts[at] = min(max(start, 0), shapes[0][at] - sizes[at])
    for at, size in enumerate(sizes):
        if not is_symbol(size):
            ends[at] = starts[at] + size
    found = cut(graph, given[0], shapes[0], starts, ends, [1] * len(sizes))
    left = [held for at, held in enumerate(found.shape) if at not in numbers.collapsed_slice_dims]
    return graph.reshape(found, tuple(left))


def _along(
    graph: Graph, given: list[Value], shapes: Any, axis: int, offsets: Sequence[int], out: Any
) -> Value:
    """Look up along one axis, and take all others whole."""
    operand = graph.whole(given[0], shapes[0], [axis])
    places = graph.cast(graph.reshape(given[1], given[1].shape[:-1]), np.int64)
    places = clamp(graph, integers(0), places, integers(int(shapes[0][axis]) - 1))
    before, after = operand.shape[:axis], operand.shape[axis + 1 :]
    shape = (*before, *places.shape, *after)
    found = graph.op("Gather", [operand, places], shape, out.dtype, axis=axis)
    first = range(axis, axis + len(places.shape))
    rest = [at for at in range(len(shape)) if at not in first]
    found = transposed(graph, found, [*first, *rest])
    return _ordered(graph, found, offsets, out)


def _ordered(graph: Graph, found: Value, offsets: Sequence[int], out: Any) -> Value:
    """Put axes of the places, and behind them those of what was there, in JAX's order."""
    front = [at for at in range(len(out.shape)) if at not in offsets]
    order = [0] * len(out.shape)
    for source, at in enumerate([*front, *offsets]):
        order[at] = source
    return transposed(graph, found, order)


def _scatter(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    _, indices, updates = given
    held = [1 if is_symbol(s) else s for s in shapes[0]]
    new = [1 if is_symbol(s) else s for s in shapes[2]]
    known = indices.array is not None and not indices.array.any()
    if not known or int(np.prod(held)) != int(np.prod(new)):
        raise NotImplementedError("a write at places that vary has no translation to ONNX")
    return reshaped(graph, updates, shapes[2], outputs[0].shape)


RULES |= {"gather": _gather, "scatter": _scatter}
