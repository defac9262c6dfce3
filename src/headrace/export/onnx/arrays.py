"""What primitives of JAX that put arrays together, cut, look up and add up are in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.export.onnx.graph import Graph, Shape, Value, constant, integers, is_one, is_symbol
from headrace.export.onnx.primitives import RULES, convert, select, transposed
from headrace.export.onnx.simpler import broadcast, broadcast_shapes

_REDUCED = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_WORD_BITS = (0x55555555, 0x33333333, 0x0F0F0F0F)


def _concatenate(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    axis, out = params["dimension"], outputs[0]
    pairs = [(value, shape) for value, shape in zip(given, shapes, strict=True) if 0 not in shape]
    if len(pairs) == 1:
        return pairs[0][0]
    return joined(graph, [v for v, _ in pairs], [s for _, s in pairs], axis, out.dtype)


def joined(
    graph: Graph, given: Sequence[Value], shapes: Sequence[Shape], axis: int, dtype: Any
) -> Value:
    """Put values side by side; what is to be broadcast in all of them stays so elsewhere."""
    held = [
        at
        for at in range(len(shapes[0]))
        if at == axis or any(is_symbol(v.shape[at]) or v.shape[at] != 1 for v in given)
    ]
    full = [graph.whole(v, s, held) for v, s in zip(given, shapes, strict=True)]
    shape = list(full[0].shape)
    shape[axis] = sum(value.shape[axis] for value in full)
    if all(value.array is not None for value in full):
        array = np.concatenate([np.asarray(value.array) for value in full], axis)
        return Value("", array.shape, np.dtype(dtype), array)
    return graph.op("Concat", full, tuple(shape), dtype, axis=axis)


def _stack(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    axis, rank = params["axis"], len(outputs[0].shape)
    axis %= rank
    wide = [graph.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in given]
    sizes = [(*shape[:axis], 1, *shape[axis:]) for shape in shapes]
    return joined(graph, wide, sizes, axis, outputs[0].dtype)


def _slice(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(starts)
    return cut(graph, given[0], shapes[0], starts, ends, steps)


def cut(
    graph: Graph,
    value: Value,
    shape: Shape,
    starts: Sequence[int],
    ends: Sequence[int],
    steps: Sequence[int],
) -> Value:
    """Return a part of a value along each axis."""
    axes, sizes = [], list(value.shape)
    for at, (size, held) in enumerate(zip(shape, value.shape, strict=True)):
        if is_symbol(held) or is_symbol(size):
            continue  # rows are never cut
        if held != 1 and (starts[at], ends[at], steps[at]) != (0, size, 1):
            axes.append(at)
            sizes[at] = len(range(starts[at], ends[at], steps[at]))
    if not axes:
        return value
    if value.array is not None:
        where = [slice(None)] * len(shape)
        for at in axes:
            where[at] = slice(starts[at], ends[at], steps[at])
        return Value("", tuple(sizes), value.dtype, value.array[tuple(where)])
    told = [integers([of[at] for at in axes]) for of in (starts, ends)]
    told += [integers(axes), integers([steps[at] for at in axes])]
    return graph.op("Slice", [value, *told], tuple(sizes), value.dtype)


def _split(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> list[Value]:
    axis, found, first = params["axis"], list[Value](), 0
    rank = len(shapes[0])
    for size in params["sizes"]:
        starts, ends = [0] * rank, [*shapes[0]]
        starts[axis], ends[axis] = first, first + size
        first += size
        empty = np.zeros([1 if is_symbol(s) else s for s in outputs[len(found)].shape])
        found.append(
            constant(empty, given[0].dtype)
            if size == 0
            else cut(graph, given[0], shapes[0], starts, ends, [1] * rank)
        )
    return found


def _pad(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    low, high, within = zip(*params["padding_config"], strict=True)
    value, shape = spread(graph, given[0], shapes[0], within, given[1])
    return padded(graph, value, shape, low, high, given[1])


def padded(
    graph: Graph,
    value: Value,
    shape: Shape,
    low: Sequence[int],
    high: Sequence[int],
    filling: Value,
) -> Value:
    """Put so many numbers before and behind a value, along each axis."""
    axes = [at for at, both in enumerate(zip(low, high, strict=True)) if any(both)]
    if not axes:
        return value
    if min(*low, *high) < 0:
        raise NotImplementedError("padding by less than nothing has no translation to ONNX")
    value = graph.whole(value, shape, axes)
    sizes = [
        held + low[at] + high[at] if at in axes else held for at, held in enumerate(value.shape)
    ]
    given = [value, integers([*low, *high]), filling]
    return graph.op("Pad", given, tuple(sizes), value.dtype)


def spread(
    graph: Graph, value: Value, shape: Shape, between: Sequence[int], filling: Value
) -> tuple[Value, Shape]:
    """Put so many numbers between those of a value, along each axis; return its shape, too."""
    for axis, more in enumerate(between):
        if not more:
            continue
        value = graph.whole(value, shape, [axis])
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        held = [*value.shape]
        rest = [0] * len(shape)
        alone = graph.reshape(value, (*held[: axis + 1], 1, *held[axis + 1 :]))
        high = [*rest[: axis + 1], more, *rest[axis + 1 :]]
        wide = padded(graph, alone, (*shape[: axis + 1], 1, *after), [*rest, 0], high, filling)
        held[axis] = size * (more + 1)
        value = graph.reshape(wide, tuple(held))
        shape = (*before, held[axis], *after)
        ends = [*shape]
        ends[axis] -= more
        value = cut(graph, value, shape, rest, ends, [1] * len(shape))
        shape = tuple(ends)
    return value, shape


def _iota(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    at, out = params["dimension"], outputs[0]
    if is_symbol(out.shape[at]):
        raise NotImplementedError("the places of rows have no translation to ONNX")
    shape = [1] * len(out.shape)
    shape[at] = out.shape[at]
    return constant(np.arange(out.shape[at]).reshape(shape), out.dtype)


def _reduce(kind: str) -> Any:
    def rule(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
        axes = [int(at) for at in params["axes"]]
        value = graph.whole(given[0], shapes[0], axes)
        left = tuple(held for at, held in enumerate(value.shape) if at not in axes)
        if kind in ("reduce_or", "reduce_and"):
            name, number = ("ReduceMax" if kind == "reduce_or" else "ReduceMin"), np.int32
            some = reduced(graph, name, graph.cast(value, number), axes, left)
            return graph.cast(some, np.bool_)
        return graph.bounded(reduced(graph, _REDUCED[kind], value, axes, left))

    return rule


def reduced(graph: Graph, kind: str, value: Value, axes: list[int], left: Shape) -> Value:
    """Fold axes of a value by a function."""
    return graph.op(kind, [value, integers(axes)], left, value.dtype, keepdims=0)


def _arg(kind: str) -> Any:
    def rule(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
        (axis,) = params["axes"]
        value = graph.whole(given[0], shapes[0], [axis])
        if value.dtype in (np.bool_, np.uint8):
            value = graph.cast(value, np.int32)
        left = tuple(held for at, held in enumerate(value.shape) if at != axis)
        place = graph.op(kind, [value], left, np.int64, axis=int(axis), keepdims=0)
        return graph.cast(place, outputs[0].dtype)

    return rule


def _cumsum(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    value = graph.whole(given[0], shapes[0], [params["axis"]])
    axis = integers(params["axis"])
    return graph.op(
        "CumSum", [value, axis], value.shape, value.dtype, reverse=int(params["reverse"])
    )


def _sort(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    if len(given) > 1:
        raise NotImplementedError("a sort of several arrays has no translation to ONNX")
    axis, size = params["dimension"], shapes[0][params["dimension"]]
    value = graph.whole(given[0], shapes[0], [axis])
    count = integers([size])
    return graph.op(
        "TopK", [value, count], value.shape, value.dtype, axis=axis, largest=0, several=2
    )


def _dot_general(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    (contracted, batched), out = params["dimension_numbers"], outputs[0]
    sides = []
    for value, shape, inner, batch in zip(given, shapes, contracted, batched, strict=True):
        free = [at for at in range(len(shape)) if at not in (*inner, *batch)]
        value = graph.whole(value, shape, inner)
        if len(free) > 1 or len(inner) > 1:
            value = graph.whole(value, shape, free)
        sides.append((value, [*batch], free, [*inner]))
    (left, *first), (right, *second) = sides
    rows, width = [left.shape[at] for at in first[1]], [left.shape[at] for at in first[2]]
    columns = [right.shape[at] for at in second[1]]
    one = transposed(graph, left, [*first[0], *first[1], *first[2]])
    other = transposed(graph, right, [*second[0], *second[2], *second[1]])
    size = _product(width)
    one = graph.reshape(one, (*one.shape[: len(first[0])], _product(rows), size))
    other = graph.reshape(other, (*other.shape[: len(second[0])], size, _product(columns)))
    batch_shape = broadcast_shapes([one.shape[:-2], other.shape[:-2]])
    shape = (*batch_shape, one.shape[-2], other.shape[-1])
    made = graph.op("MatMul", [one, other], shape, out.dtype)
    return graph.reshape(made, (*batch_shape, *rows, *columns))


def _product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = size if not is_symbol(total) and total == 1 else total * size
    return total


def _shift(name: str) -> Any:
    """Shift unsigned numbers, which are held in 64 bits."""

    def rule(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
        value, places = (graph.op("Cast", [v], v.shape, np.uint64, to=13) for v in given)
        shape = broadcast([value, places])
        made = graph.op("BitShift", [value, places], shape, np.uint64, direction=name)
        wide = graph.op("Cast", [made], shape, np.uint32, to=7)
        return graph.bounded(wide)

    return rule


def _population_count(
    graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any
) -> Value:
    """Count bits in parallel (Warren 2012, "Hacker's delight", section 5-1)."""
    (value,), shape = given, given[0].shape

    def op(kind: str, *values: Value) -> Value:
        return graph.op(kind, values, shape, np.uint32)

    for places, mask in zip((1, 2, 4), _WORD_BITS, strict=True):
        bits, step = integers(mask), integers(1 << places)
        high = op("BitwiseAnd", op("Div", value, step), bits)
        value = op("Add", op("BitwiseAnd", value, bits), high)
    total = op("Mod", value, integers(255))
    return total


def _scan(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> list[Value]:
    """Write a loop of a known length out."""
    consts, carried = params["num_consts"], params["num_carry"]
    inner = params["jaxpr"]
    fixed, carry, rows = given[:consts], given[consts : consts + carried], given[consts + carried :]
    sizes, told = shapes[consts + carried :], list[list[Value]]()
    order = range(params["length"])
    for at in reversed(order) if params["reverse"] else order:
        row = []
        for value, shape in zip(rows, sizes, strict=True):
            starts, ends = [at, *[0] * (len(shape) - 1)], [at + 1, *shape[1:]]
            one = cut(graph, value, shape, starts, ends, [1] * len(shape))
            row.append(graph.reshape(one, one.shape[1:]))
        found = convert(graph, inner.jaxpr, inner.consts, [*fixed, *carry, *row])
        carry = found[:carried]
        told.append(found[carried:])
    if params["reverse"]:
        told.reverse()
    stacked = [
        _stack(graph, {"axis": 0}, [*each], [out.shape[1:]] * len(each), [out])
        for each, out in zip(zip(*told, strict=True), outputs[carried:], strict=True)
    ]
    return [*carry, *stacked]


def _cond(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> list[Value]:
    """Take the branch that is known; else calculate both, and choose."""
    which, *inputs = given
    branches = params["branches"]
    if which.array is not None:
        taken = branches[int(np.clip(which.array.item(), 0, len(branches) - 1))]
        return convert(graph, taken.jaxpr, taken.consts, inputs)
    if len(branches) != 2:
        raise NotImplementedError("a branch of more than two has no translation to ONNX")
    no, yes = (convert(graph, each.jaxpr, each.consts, inputs) for each in branches)
    chosen = []
    for one, other, out in zip(no, yes, outputs, strict=True):
        condition = graph.reshape(graph.cast(which, np.bool_), (1,) * len(out.shape))
        chosen.append(select(graph, condition, one, other))
    return chosen


def _rev(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    value = given[0]
    for axis in params["dimensions"]:
        places = integers(range(shapes[0][axis])[::-1])
        if not is_one(value.shape[axis]):
            value = graph.op("Gather", [value, places], value.shape, value.dtype, axis=int(axis))
    return value


RULES |= {
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "concatenate": _concatenate,
    "cond": _cond,
    "cumsum": _cumsum,
    "dot_general": _dot_general,
    "iota": _iota,
    "pad": _pad,
    "population_count": _population_count,
    "rev": _rev,
    "scan": _scan,
    "shift_left": _shift("LEFT"),
    "shift_right_logical": _shift("RIGHT"),
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "stack": _stack,
    **{name: _reduce(name) for name in (*_REDUCED, "reduce_or", "reduce_and")},
}
