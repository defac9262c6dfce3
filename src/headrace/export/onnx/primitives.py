"""What each primitive of JAX is in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from headrace.export.onnx.graph import Graph, Shape, Value, constant, is_one, is_symbol
from headrace.export.onnx.simpler import broadcast, extreme, fall, least, product_less, scaled

Rule = Callable[..., Value | list[Value]]

_UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_BINARY = {
    "add": "Add",
    "add_any": "Add",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
}
_COMPARED = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}
_BITS = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}
_SAME = {"copy", "copy_p", "optimization_barrier", "stop_gradient", "reduce_precision"}
_INNER = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
_INNER |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def convert(
    graph: Graph, jaxpr: Jaxpr, known: Sequence[Any], given: Sequence[Value]
) -> list[Value]:
    """Add a traced function to a graph, and return its outputs.

    Raises:
        NotImplementedError: it does something that is not translated.
    """
    values: dict[Any, Value] = {}
    for variable, array in zip(jaxpr.constvars, known, strict=True):
        values[variable] = constant(np.asarray(array))
    values |= dict(zip(jaxpr.invars, given, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return constant(atom.val, aval.dtype)
        return values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        found = _apply(graph, equation, inputs)
        values |= dict(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, given: list[Value]) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    outputs = [variable.aval for variable in equation.outvars]
    if all(0 in aval.shape for aval in outputs):
        return [_nothing(aval) for aval in outputs]
    if name in _INNER:
        inner = params[_INNER[name]]
        consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
        return convert(graph, getattr(inner, "jaxpr", inner), consts, given)
    if name in _SAME:
        return given
    shapes = [atom.aval.shape for atom in equation.invars]
    sizes = chain.from_iterable([*shapes, *(aval.shape for aval in outputs)])
    if all(value.array is not None for value in given) and not any(map(is_symbol, sizes)):
        return _fold(equation, given, shapes)
    if name == "div" and isinstance(equation.invars[1], Literal) and given[0].dtype.kind == "f":
        by = 1.0 / np.asarray(given[1].array)  # XLA makes it of what stands in a program
        name, given = "mul", [given[0], constant(by, given[1].dtype)]
    made = _translate(graph, name, params, given, shapes, outputs)
    return made if isinstance(made, list) else [made]


def _nothing(aval: Any) -> Value:
    """Return an array without numbers."""
    return constant(np.zeros([1 if is_symbol(s) else s for s in aval.shape], aval.dtype))


def _fold(equation: Any, given: list[Value], shapes: Sequence[Shape]) -> list[Value]:
    """Calculate what is known."""
    arrays = [
        jax.numpy.asarray(np.broadcast_to(value.array, shape).astype(value.dtype))  # type: ignore[arg-type]
        for value, shape in zip(given, shapes, strict=True)
    ]
    found = equation.primitive.bind(*arrays, **equation.params)
    several = found if equation.primitive.multiple_results else [found]
    return [_small(np.asarray(array)) for array in several]


def _small(array: Any) -> Value:
    """Hold what is the same number everywhere once, to be broadcast."""
    if array.size > 1 and (array == array.flat[0]).all():
        array = array.reshape(-1)[:1].reshape((1,) * array.ndim)
    return constant(array)


def _translate(
    graph: Graph,
    name: str,
    params: dict[str, Any],
    given: list[Value],
    shapes: Sequence[Shape],
    outputs: Sequence[Any],
) -> Value | list[Value]:
    out = outputs[0]
    if name in _UNARY:
        return graph.op(_UNARY[name], given, given[0].shape, out.dtype)
    if name == "mul" and out.dtype.kind == "f":
        given = scaled(graph, given)
    if name == "sub" and (made := product_less(graph, given, broadcast(given), out.dtype)):
        return made
    if name in _BINARY:
        return graph.bounded(graph.op(_BINARY[name], given, broadcast(given), out.dtype))
    if name in _COMPARED:
        return _compared(graph, _COMPARED[name], given)
    if name in _BITS:
        kind = _BITS[name][out.dtype != np.bool_]
        return graph.op(kind, given, broadcast(given), out.dtype)
    if name in RULES:
        return RULES[name](graph, params, given, shapes, outputs)
    raise NotImplementedError(f"{name} has no translation to ONNX")


def _compared(graph: Graph, kind: str, given: Sequence[Value]) -> Value:
    if given[0].dtype in (np.bool_, np.uint8):
        given = [graph.cast(value, np.int32) for value in given]
    return graph.op(kind, given, broadcast(given), np.bool_)


def _ne(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    equal = _compared(graph, "Equal", given)
    return graph.op("Not", [equal], equal.shape, np.bool_)


def _not(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    (value,) = given
    kind = "Not" if value.dtype == np.bool_ else "BitwiseNot"
    return graph.bounded(graph.op(kind, given, value.shape, value.dtype))


def _is_finite(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    (value,) = given
    size = graph.op("Abs", given, value.shape, value.dtype)  # NaN is less than nothing
    return graph.op("Less", [size, constant(np.inf, value.dtype)], value.shape, np.bool_)


def _rem(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    return graph.op("Mod", given, broadcast(given), given[0].dtype, fmod=1)


def _round(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    if params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise NotImplementedError("round away from zero has no translation to ONNX")
    return graph.op("Round", given, given[0].shape, given[0].dtype)


def _square(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    return graph.op("Mul", [given[0]] * 2, given[0].shape, given[0].dtype)


def _rsqrt(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    root = graph.op("Sqrt", given, given[0].shape, given[0].dtype)
    return graph.op("Reciprocal", [root], root.shape, root.dtype)


def _log1p(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    more = graph.op("Add", [given[0], constant(1, given[0].dtype)], given[0].shape, given[0].dtype)
    return graph.op("Log", [more], more.shape, more.dtype)


def _expm1(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    power = graph.op("Exp", given, given[0].shape, given[0].dtype)
    return graph.op("Sub", [power, constant(1, power.dtype)], power.shape, power.dtype)


def _integer_pow(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    exponent = constant(params["y"], given[0].dtype)
    return graph.op("Pow", [given[0], exponent], given[0].shape, given[0].dtype)


def _clamp(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    return clamp(graph, *given)


def clamp(graph: Graph, least: Value, value: Value, most: Value) -> Value:
    """Bring numbers between two ends."""
    if value.array is not None and least.array is not None and most.array is not None:
        return constant(np.clip(value.array, least.array, most.array), value.dtype)
    if least.shape == most.shape == ():
        return graph.op("Clip", [value, least, most], value.shape, value.dtype)
    above = graph.op("Max", [value, least], broadcast([value, least]), value.dtype)
    return graph.op("Min", [above, most], broadcast([above, most]), value.dtype)


def _select(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    which, *cases = given
    if len(cases) != 2:
        raise NotImplementedError("a choice of more than two has no translation to ONNX")
    return select(graph, which, *cases)


def select(graph: Graph, which: Value, no: Value, yes: Value) -> Value:
    """Choose one of two values, number by number."""
    if no is yes:  # JAX keeps a branch on something that rows decide in this way
        return no
    which = graph.cast(which, np.bool_)
    if which.shape == () and yes.shape:
        which = graph.reshape(which, (1,) * max(len(yes.shape), len(no.shape)))
    if which.array is not None and which.array.size == 1:
        return yes if which.array.item() else no
    if kind := extreme(graph, which, yes, no):
        nothing = no.array is not None and not no.array.any()
        if kind == "Max" and nothing and (made := fall(graph, yes)):
            return made
        made = graph.op(kind, [yes, no], broadcast([yes, no]), no.dtype)
        return (made.shape[-1:] == (1,) and least(graph, made)) or made
    if no.dtype != np.bool_:
        return graph.op("Where", [which, yes, no], broadcast([which, yes, no]), no.dtype)
    one = graph.op("And", [which, yes], broadcast([which, yes]), np.bool_)
    never = graph.op("Not", [which], which.shape, np.bool_)
    other = graph.op("And", [never, no], broadcast([never, no]), np.bool_)
    return graph.op("Or", [one, other], broadcast([one, other]), np.bool_)


def _convert_type(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    dtype = np.dtype(params["new_dtype"])
    if dtype == np.bool_ and given[0].dtype.kind == "f":
        return _ne(graph, {}, [given[0], _like(given[0], 0)])
    return graph.cast(given[0], dtype)


def _like(value: Value, number: float) -> Value:
    return constant(np.full((1,) * len(value.shape), number), value.dtype)


def _broadcast_in_dim(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    value, shape = given[0], [1] * len(params["shape"])
    for held, at in zip(value.shape, params["broadcast_dimensions"], strict=True):
        shape[at] = held
    return graph.reshape(value, tuple(shape))


def _reshape(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    (value,), (shape,), order = given, shapes, params["dimensions"]
    if order is not None:  # it is transposed before
        value, shape = transposed(graph, value, order), tuple(shape[at] for at in order)
    return reshaped(graph, value, shape, outputs[0].shape)


def reshaped(graph: Graph, value: Value, old: Shape, new: Shape) -> Value:
    """Give a value of a shape another one."""
    if [size for size in old if not is_one(size)] == [size for size in new if not is_one(size)]:
        pairs = zip(old, value.shape, strict=True)
        held = iter([size for whole, size in pairs if not is_one(whole)])
        return graph.reshape(value, tuple(1 if is_one(size) else next(held) for size in new))
    return graph.reshape(graph.whole(value, old), tuple(new))


def _squeeze(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    gone = {at % len(shapes[0]) for at in params["dimensions"]}
    left = tuple(held for at, held in enumerate(given[0].shape) if at not in gone)
    return graph.reshape(given[0], left)


def _expand_dims(graph: Graph, params: Any, given: list[Value], shapes: Any, outputs: Any) -> Value:
    added = {at % len(outputs[0].shape) for at in params["dimensions"]}
    held = iter(given[0].shape)
    shape = tuple(1 if at in added else next(held) for at in range(len(outputs[0].shape)))
    return graph.reshape(given[0], shape)


def _transpose(graph: Graph, params: Any, given: list[Value], *_: Any) -> Value:
    return transposed(graph, given[0], params["permutation"])


def transposed(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    """Put axes into another order."""
    order = [int(at) for at in order]
    if order == sorted(order):
        return value
    shape = tuple(value.shape[at] for at in order)
    if value.array is not None:
        return Value("", shape, value.dtype, value.array.transpose(order))
    moving = [at for at in order if is_symbol(value.shape[at]) or value.shape[at] != 1]
    if moving == sorted(moving):
        return graph.reshape(value, shape)
    return graph.op("Transpose", [value], shape, value.dtype, perm=order)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "convert_element_type": _convert_type,
    "expand_dims": _expand_dims,
    "expm1": _expm1,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _ne,
    "not": _not,
    "rem": _rem,
    "reshape": _reshape,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": _square,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
"""By the names of primitives, those that are more than a node of ONNX's."""
