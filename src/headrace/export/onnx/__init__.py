"""A function of JAX as a model of ONNX.

jax2onnx was tried (0.17.1): it puts its own functions in place of `jax.numpy`'s while it traces,
and what of them is mapped over rows does not come out right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import onnx
from jax.interpreters import partial_eval

from headrace.export.onnx import arrays, gather, windows  # noqa: F401  they add their rules
from headrace.export.onnx.graph import Graph, Shape
from headrace.export.onnx.primitives import convert


def to_onnx(
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[tuple[str, jax.ShapeDtypeStruct]],
    outputs: Sequence[str],
    notes: dict[str, str],
) -> onnx.ModelProto:
    """Return a model of ONNX that calculates what a function does.

    Args:
        function: maps arrays, the first axis of each being that of rows, to arrays.
        inputs: name, shape and type of each array; the rows are the symbol n.
        outputs: a name for each of what it gives.
        notes: go into the model's metadata.

    Raises:
        NotImplementedError: the function does something that is not translated.
    """
    closed = jax.make_jaxpr(function)(*(shape for _, shape in inputs))
    used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(outputs), instantiate=True)
    graph = Graph({*outputs, *(name for name, _ in inputs)})
    given = [graph.add_input(name, shape.shape, shape.dtype) for name, shape in inputs]
    kept = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    found = convert(graph, used, [kept[each] for each in used.constvars], given)
    named = [
        (name, value, _shape(variable))
        for name, value, variable in zip(outputs, found, used.outvars, strict=True)
    ]
    return graph.model(named, notes)


def _shape(variable: Any) -> Shape:
    return tuple(variable.aval.shape)
