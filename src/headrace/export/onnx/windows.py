"""What convolutions, and folds of windows such as pooling, are in ONNX."""

from __future__ import annotations

from math import prod
from typing import Any

from headrace.export.onnx.arrays import padded, spread
from headrace.export.onnx.graph import Graph, Value, constant
from headrace.export.onnx.primitives import RULES, transposed

MOST_AXES = 3  # along which runtimes move a window


def _convolution(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    """Convolve; ONNX has rows first, then channels."""
    if params["batch_group_count"] != 1:
        raise NotImplementedError("a convolution of groups of rows has no translation to ONNX")
    numbers, (out,) = params["dimension_numbers"], outputs
    rows, *inner = numbers.lhs_spec
    value = transposed(graph, graph.whole(given[0], shapes[0], inner), numbers.lhs_spec)
    shape = tuple(shapes[0][at] for at in (rows, *inner))
    kernel = transposed(graph, graph.whole(given[1], shapes[1]), numbers.rhs_spec)
    low, high = zip(*params["padding"], strict=True)
    nothing = constant(0, value.dtype)
    between = [by - 1 for by in params["lhs_dilation"]]
    value, shape = spread(graph, value, shape, [0, 0, *between], nothing)
    value = padded(graph, value, shape, [0, 0, *low], [0, 0, *high], nothing)
    made = graph.op(
        "Conv",
        [value, kernel],
        (value.shape[0], *(out.shape[at] for at in numbers.out_spec[1:])),
        out.dtype,
        strides=[*params["window_strides"]],
        dilations=[*params["rhs_dilation"]],
        group=params["feature_group_count"],
    )
    order = sorted(range(len(out.shape)), key=lambda at: numbers.out_spec[at])
    return transposed(graph, made, order)


def _pool(kind: str, filling: float) -> Any:
    """Fold each place of a moving window by a function for which `filling` changes nothing."""

    def rule(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
        (value,), (shape,), (out,) = given, shapes, outputs
        sizes, steps = params["window_dimensions"], params["window_strides"]
        apart, rank = params["window_dilation"], len(shape)
        low, high = zip(*params["padding"], strict=True)
        moved = [at for at in range(rank) if (sizes[at], steps[at]) != (1, 1)]
        if any(by != 1 for by in params["base_dilation"]) or len(moved) > MOST_AXES:
            raise NotImplementedError(f"such a {kind} has no translation to ONNX")
        if kind == "AveragePool" and (out.dtype.kind != "f" or any(by != 1 for by in apart)):
            raise NotImplementedError("such a sum of windows has no translation to ONNX")
        value = padded(graph, value, shape, low, high, constant(filling, value.dtype))
        if not moved:
            return value
        whole = [sum(sizes) for sizes in zip(shape, low, high, strict=True)]
        value = graph.whole(value, tuple(whole), moved)
        rest = [at for at in range(rank) if at not in moved]
        order = [*rest, *moved]
        value = transposed(graph, value, order)
        before, after = value.shape[: len(rest)], tuple(out.shape[at] for at in moved)
        rows = before[:1] or (1,)
        flat = graph.reshape(value, (*rows, prod(before[1:]), *value.shape[len(rest) :]))
        told = {"dilations": [apart[at] for at in moved]} if kind == "MaxPool" else {}
        window = [sizes[at] for at in moved]
        made = graph.op(
            kind,
            [flat],
            (*flat.shape[:2], *after),
            out.dtype,
            kernel_shape=window,
            strides=[steps[at] for at in moved],
            **told,
        )
        if kind == "AveragePool":
            count = constant(prod(window), out.dtype)
            made = graph.op("Mul", [made, count], made.shape, out.dtype)
        made = graph.reshape(made, (*before, *after))
        return transposed(graph, made, sorted(range(rank), key=lambda at: order[at]))

    return rule


RULES |= {
    "conv_general_dilated": _convolution,
    "reduce_window_max": _pool("MaxPool", float("-inf")),
    "reduce_window_sum": _pool("AveragePool", 0.0),
}
