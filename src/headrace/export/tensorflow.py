"""A graph of ONNX as operations of TensorFlow: a SavedModel, or a file for TensorFlow Lite.

Written out operation by operation rather than by jax2tf, whose programs TensorFlow Lite takes only
in part, and which only a TensorFlow with the same version of StableHLO can run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

Op = Callable[..., Any]

_PLAIN: dict[str, Op] = {
    "Abs": tf.abs,
    "Add": tf.add,
    "And": tf.logical_and,
    "BitwiseNot": tf.bitwise.invert,
    "BitwiseOr": tf.bitwise.bitwise_or,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Equal": tf.equal,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Expand": tf.broadcast_to,
    "Floor": tf.floor,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Identity": tf.identity,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Log": tf.math.log,
    "MatMul": tf.matmul,
    "Max": tf.maximum,
    "Min": tf.minimum,
    "Mul": tf.multiply,
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Or": tf.logical_or,
    "Pow": tf.pow,
    "Range": tf.range,
    "Reciprocal": tf.math.reciprocal,
    "Reshape": tf.reshape,
    "Round": tf.round,
    "Sigmoid": tf.sigmoid,
    "Sin": tf.sin,
    "Sqrt": tf.sqrt,
    "Sub": tf.subtract,
    "Tanh": tf.tanh,
    "Where": tf.where,
    "Xor": tf.math.logical_xor,
}
_REDUCED = {"ReduceMax": tf.reduce_max, "ReduceMin": tf.reduce_min, "ReduceSum": tf.reduce_sum}
_SHIFTS = {b"LEFT": tf.bitwise.left_shift, b"RIGHT": tf.bitwise.right_shift}
_POOLED = {"AveragePool": "AVG", "MaxPool": "MAX"}
_OPS: dict[str, Op] = {
    "ArgMax": lambda x, axis, keepdims: tf.argmax(x, axis),
    "ArgMin": lambda x, axis, keepdims: tf.argmin(x, axis),
    "BitShift": lambda x, places, direction: _SHIFTS[direction](x, places),
    "Cast": lambda x, to: tf.cast(x, onnx.helper.tensor_dtype_to_np_dtype(to)),
    "BitwiseXor": lambda x, y: tf.cast(_xor(x, y), x.dtype),
    "Clip": lambda x, least, most: tf.maximum(tf.minimum(x, most), least),
    "Concat": lambda *several, axis: tf.concat(several, axis),
    "CumSum": lambda x, axis, reverse: tf.cumsum(x, axis, reverse=bool(reverse)),
    "Gather": lambda x, at, axis: tf.gather(x, at, axis=axis),
    "Gemm": lambda x, y, rest, alpha, beta: beta * rest + alpha * tf.matmul(x, y),
    "HardSigmoid": lambda x, alpha, beta: tf.clip_by_value(alpha * x + beta, 0.0, 1.0),
    "Sign": lambda x: tf.cast(x > 0, x.dtype) - tf.cast(x < 0, x.dtype),
    "Shape": lambda x, start, end: tf.shape(x, tf.int64)[start:end],
    "TopK": lambda x, k, axis, largest: tf.sort(x, axis),
    "Transpose": lambda x, perm: tf.transpose(x, perm),
}


def names_of(names: Iterable[str]) -> list[str]:
    """Return the names that inputs have in TensorFlow, which takes letters, digits and _ only."""
    found: list[str] = []
    for each in names:
        name = re.sub(r"\W", "_", each, flags=re.ASCII)
        name = name if re.match("[A-Za-z]", name) else f"x{name}"
        while name in found:
            name += "_"
        found.append(name)
    return found


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a SavedModel into a folder; its signature takes and gives arrays by name."""
    module = tf.Module()
    module.predict = _function(model, None)
    signature = module.predict.get_concrete_function()
    tf.saved_model.save(module, str(path), signatures=signature)


def write_lite(model: onnx.ModelProto, path: Path) -> None:
    """Write a file for TensorFlow Lite, of its own operations alone, for one row at a time."""
    module = tf.Module()
    module.predict = _function(model, 1)
    signature = module.predict.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        data = converter.convert()
    except Exception as error:  # of many kinds
        lacks = re.search(r"TF Select ops: (.+)", str(error))
        reason = f"TensorFlow Lite has no {lacks[1]} for it" if lacks else str(error)[:300]
        raise NotImplementedError(reason) from error
    path.write_bytes(data)


def _function(model: onnx.ModelProto, rows: int | None) -> Any:
    graph = model.graph
    names = names_of(each.name for each in graph.input)
    given = []
    for name, each in zip(names, graph.input, strict=True):
        kind = each.type.tensor_type
        sizes = [size.dim_value or rows for size in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        given.append(tf.TensorSpec(sizes, dtype, name))
    known = {each.name: numpy_helper.to_array(each) for each in graph.initializer}

    def predict(*arrays: Any) -> dict[str, Any]:
        values: dict[str, Any] = {name: tf.constant(array) for name, array in known.items()}
        values |= {each.name: array for each, array in zip(graph.input, arrays, strict=True)}
        for node in graph.node:
            values[node.output[0]] = _run(node, values, known)
        return {each.name: values[each.name] for each in graph.output}

    return tf.function(predict, input_signature=given, autograph=False)


def _run(node: Any, values: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    given = [values[name] for name in node.input]
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    match node.op_type:
        case "Div" if not given[0].dtype.is_floating:
            return tf.truncatediv(*given)
        case "Div":
            return tf.divide(*given)
        case "Mod" if given[0].dtype == tf.int64:  # and not negative, or put right by JAX
            return tf.math.floormod(*given)
        case "Mod":
            return given[0] - tf.truncatediv(*given) * given[1]
        case "BitwiseAnd":
            mask = known.get(node.input[1])
            if mask is not None and mask.size == 1 and (mask + 1) & mask == 0:  # ends in ones
                return tf.math.floormod(given[0], tf.constant(mask + 1))
            return tf.bitwise.bitwise_and(*given)
        case "Slice":
            return _slice(given[0], *(known[name].tolist() for name in node.input[1:]))
        case "ReduceMax" | "ReduceMin" | "ReduceSum":
            axes = known[node.input[1]].tolist()
            folded = _reduce(_REDUCED[node.op_type], given[0], axes)
            return _kept(folded, axes) if attributes["keepdims"] else folded
        case "Pad":
            low, high = np.split(known[node.input[1]], 2)
            return _pad(given[0], low, high, given[2])
        case "Conv":
            return _convolution(*given, **attributes)
        case kind if kind in _POOLED:
            return _pool(_POOLED[kind], given[0], **attributes)
        case kind if kind in _PLAIN:
            return _PLAIN[kind](*given)
        case kind:
            return _OPS[kind](*given, **attributes)


def _slice(
    array: Any, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> Any:
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        array = _cut(array, axis, slice(start, end, step))
    return array


def _cut(array: Any, axis: int, part: slice) -> Any:
    """Cut along one axis; TensorFlow Lite does it in arrays of five axes at most."""
    if array.shape.rank < 6 or None in array.shape:
        return array[(slice(None),) * axis + (part,)]
    sizes = array.shape.as_list()
    flat = tf.reshape(array, [math.prod(sizes[:axis]), sizes[axis], math.prod(sizes[axis + 1 :])])
    sizes[axis] = len(range(*part.indices(sizes[axis])))
    return tf.reshape(flat[:, part], sizes)


def _reduce(fold: Op, array: Any, axes: list[int]) -> Any:
    """Fold axes; TensorFlow Lite does it in arrays of few axes."""
    if array.shape.rank < 5 or None in array.shape:
        return fold(array, axes)
    for axis in sorted(axes, reverse=True):
        sizes = array.shape.as_list()
        before, after = sizes[:axis], sizes[axis + 1 :]
        flat = tf.reshape(array, [math.prod(before), sizes[axis], math.prod(after)])
        array = tf.reshape(fold(flat, 1), [*before, *after])
    return array


def _kept(folded: Any, axes: list[int]) -> Any:
    """Return what was folded with an axis of one in the place of each that is gone."""
    for axis in sorted(axes):
        folded = tf.expand_dims(folded, axis)
    return folded


def _pad(array: Any, low: Any, high: Any, value: Any) -> Any:
    """Put numbers around an array of more axes than TensorFlow Lite pads."""
    for axis, (before, after) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if before or after:
            one = tf.zeros_like(_cut(array, axis, slice(0, 1))) + value
            array = tf.concat([one] * before + [array] + [one] * after, axis)
    return array


def _xor(one: Any, other: Any) -> Any:
    """Return where bits differ; of 32 bits in 64, which TensorFlow Lite has no operation for."""
    narrow = (tf.bitcast(tf.cast(x, tf.uint32), tf.int32) for x in (one, other))
    return tf.bitcast(tf.bitwise.bitwise_xor(*narrow), tf.uint32)


def _convolution(
    array: Any, kernel: Any, strides: list[int], dilations: list[int], group: int
) -> Any:
    """Convolve group by group: TensorFlow's own groups are not for all machines."""
    rank = len(strides)
    kernel = tf.transpose(kernel, [*range(2, rank + 2), 1, 0])
    parts = (tf.split(each, group, -1) for each in (_channels_last(array), kernel))
    made = [
        tf.nn.convolution(*pair, strides, "VALID", dilations=dilations)
        for pair in zip(*parts, strict=True)
    ]
    return _channels_first(made[0] if group == 1 else tf.concat(made, -1))


def _pool(
    kind: str, array: Any, kernel_shape: list[int], strides: list[int], dilations: Any = None
) -> Any:
    array = _channels_last(array)
    made = tf.nn.pool(array, kernel_shape, kind, strides, "VALID", dilations=dilations)
    return _channels_first(made)


def _channels_last(array: Any) -> Any:
    """Put channels, which ONNX has before the axes of a window, behind them."""
    return tf.transpose(array, [0, *range(2, array.shape.rank), 1])


def _channels_first(array: Any) -> Any:
    return tf.transpose(array, [0, array.shape.rank - 1, *range(1, array.shape.rank - 1)])
