"""An ONNX graph as it grows: its values, and the nodes that make them.

Rows are a symbol that is only known when the model runs. What is the same for all rows, or along
another axis, is held with a size of 1 there, since ONNX broadcasts as numpy does: so nothing is
copied out before something needs it whole (`Graph.whole`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 18
ROWS = "n"  # the symbol's name in the model
WORD = 0xFFFFFFFF  # unsigned numbers are held in 64 bits: few runtimes calculate with 32

Shape = tuple[Any, ...]  # of whole numbers and symbols of jax


@dataclass(frozen=True)
class Value:
    """Hold what is known when the model is made (`array`), or the name of what is not."""

    name: str
    shape: Shape  # as it is held, with 1 where it is to be broadcast
    dtype: np.dtype[Any]  # as JAX has it
    array: NDArray[Any] | None = None


def held_type(dtype: Any) -> np.dtype[Any]:
    """Return the type in which the graph holds numbers of a type."""
    return np.dtype(np.int64) if np.dtype(dtype) in (np.uint32, np.uint64) else np.dtype(dtype)


def is_symbol(size: Any) -> bool:
    """Return whether a size is known only when the model runs."""
    return not isinstance(size, int | np.integer)


def is_one(size: Any) -> bool:
    """Return whether a size is 1, whatever the rows are."""
    return not is_symbol(size) and size == 1


def constant(array: Any, dtype: Any = None) -> Value:
    """Return a value that is known; of the type `dtype`, as JAX has it."""
    array = np.asarray(array)
    kind = np.dtype(dtype or array.dtype)
    return Value("", array.shape, kind, array.astype(held_type(kind)))


def integers(numbers: Any) -> Value:
    """Return whole numbers of 64 bits, which ONNX takes sizes, axes and places for."""
    return constant(np.array(numbers, np.int64))


class Graph:
    """Hold the nodes made so far.

    Args:
        taken: names of inputs and outputs, which no other value may have.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = taken
        self.nodes: list[onnx.NodeProto] = []
        self._known: dict[tuple[str, Shape, bytes], str] = {}
        self._shapes: dict[str, Shape] = {}
        self._single: dict[str, Any] = {}  # numbers that are known, by name
        self._made: dict[str, onnx.NodeProto] = {}  # by what each does
        self._by_output: dict[str, onnx.NodeProto] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self._rows = ""
        self.symbol: Any = None

    def add_input(self, name: str, shape: Shape, dtype: Any) -> Value:
        """Declare an input of the model; the first axis of each is the rows'."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, [ROWS, *shape[1:]]))
        if not self._rows:
            self.symbol = shape[0]
            whole = self._node("Shape", [name], start=0, end=1)
            self._rows = whole
        if np.dtype(dtype) != held_type(dtype):
            given = Value(name, shape, np.dtype(dtype))
            return self.op("Cast", [given], shape, dtype, to=onnx.TensorProto.INT64)
        return Value(name, shape, np.dtype(dtype))

    def op(
        self, kind: str, given: Sequence[Value], shape: Shape, dtype: Any, **attributes: Any
    ) -> Value:
        """Add a node, and return its first output, of `several`."""
        names = [self.name_of(value) for value in given]
        made = self._node(kind, names, **attributes)
        self._shapes[made] = tuple(shape)
        return Value(made, tuple(shape), np.dtype(dtype))

    def name_of(self, value: Value) -> str:
        """Return a value's name; what is known gets into the model."""
        if value.array is None:
            return value.name
        array = np.array(value.array, order="C")
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = name = self._fresh("known")
            self._initializers.append(numpy_helper.from_array(array, name))
            if array.size == 1:
                self._single[name] = array.item()
        return self._known[key]

    def row_numbers(self) -> Value:
        """Return the numbers of the rows, counted from 0."""
        rows = Value(self._rows, (1,), np.dtype(np.int64))
        ends = [integers(0), self.reshape(rows, ()), integers(1)]
        return self.op("Range", ends, (self.symbol,), np.int64)

    def cast(self, value: Value, dtype: Any) -> Value:
        """Convert to another type; unsigned numbers keep their lowest 32 bits."""
        held = held_type(dtype)
        if value.dtype == np.dtype(dtype):
            return value
        if value.array is not None:
            with np.errstate(all="ignore"):
                return Value("", value.shape, np.dtype(dtype), value.array.astype(held))
        kind = helper.np_dtype_to_tensor_dtype(held)
        made = self.op("Cast", [value], value.shape, dtype, to=kind)
        wide = value.dtype not in (np.bool_, np.uint8, np.uint32)
        return self.bounded(made) if np.dtype(dtype) == np.uint32 and wide else made

    def bounded(self, value: Value) -> Value:
        """Return the lowest 32 bits of an unsigned number that was calculated in 64."""
        if value.dtype != np.uint32:
            return value
        return self.op("BitwiseAnd", [value, integers(WORD)], value.shape, np.uint32)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """Give a value that is held whole another shape, of one symbol at most."""
        if tuple(shape) == tuple(value.shape):
            return value
        if value.array is not None:
            sizes = [1 if is_symbol(size) else size for size in shape]
            return Value("", tuple(sizes), value.dtype, value.array.reshape(sizes))
        before = self.maker_of(value)
        if before is not None and before.op_type == "Reshape":
            value = Value(before.input[0], self.shape_of(before.input[0]) or (), value.dtype)
            if value.shape and value.shape == tuple(shape):
                return value
        sizes = [-1 if is_symbol(size) else size for size in shape]
        if sizes.count(-1) > 1:
            raise NotImplementedError(f"a shape of several symbols: {shape}")
        return self.op("Reshape", [value, integers(sizes)], shape, value.dtype)

    def whole(self, value: Value, shape: Shape, axes: Sequence[int] | None = None) -> Value:
        """Return a value as large as its shape is, along all axes or those that are named."""
        chosen = range(len(shape)) if axes is None else axes
        wanted = [
            size if at in chosen else held
            for at, (size, held) in enumerate(zip(shape, value.shape, strict=True))
        ]
        if all(is_same_size(*pair) for pair in zip(wanted, value.shape, strict=True)):
            return value
        if value.array is not None and not any(map(is_symbol, wanted)):
            array = np.broadcast_to(value.array, wanted)
            return Value("", tuple(wanted), value.dtype, array)
        rows = Value(self._rows, (1,), np.dtype(np.int64))
        sizes = [rows if is_symbol(size) else integers([size]) for size in wanted]
        to = self.op("Concat", sizes, (len(sizes),), np.int64, axis=0)
        return self.op("Expand", [value, to], tuple(wanted), value.dtype)

    def model(
        self, outputs: Sequence[tuple[str, Value, Shape]], notes: dict[str, str]
    ) -> onnx.ModelProto:
        """Return the model as ONNX has it in a file; what leads to no output is left out."""
        named, infos = list[onnx.NodeProto](), []
        for name, value, shape in outputs:
            sizes = [ROWS if is_symbol(size) else size for size in shape]
            value = self.whole(value, shape)
            named.append(helper.make_node("Identity", [self.name_of(value)], [name]))
            kind = helper.np_dtype_to_tensor_dtype(held_type(value.dtype))
            infos.append(helper.make_tensor_value_info(name, kind, sizes))
        needed, kept = {name for node in named for name in node.input}, list[onnx.NodeProto]()
        for node in reversed(self.nodes):
            if needed & {*node.output}:
                kept.append(node)
                needed |= {*node.input}
        found = [each for each in self._initializers if each.name in needed]
        graph = helper.make_graph([*reversed(kept), *named], "headrace", self._inputs, infos, found)
        made = helper.make_model(
            graph,
            producer_name="headrace",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=9,
        )
        helper.set_model_props(made, notes)
        onnx.checker.check_model(made, full_check=True)
        return made

    def single(self, name: str) -> Any:
        """Return the one number that a name stands for, if it is known."""
        return self._single.get(name)

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape of what a node made."""
        return self._shapes.get(name)

    def maker_of(self, value: Value) -> onnx.NodeProto | None:
        """Return the node that makes a value, if one does."""
        return self.maker(value.name)

    def maker(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes what has a name, if one does."""
        return self._by_output.get(name)

    def is_same(self, name: str, value: Value) -> bool:
        """Return whether a value is the one of a name, or the same single number."""
        if value.array is None or value.array.size != 1:
            return name == value.name
        return bool(self._single.get(name) == value.array.item())

    def _node(self, kind: str, names: Sequence[str], several: int = 1, **attributes: Any) -> str:
        """Return the name of a node's first output; one that does the same is taken again."""
        does = repr((kind, names, sorted(attributes.items())))
        if does not in self._made:
            name = self._fresh(kind)
            others = [f"{name}/{at}" for at in range(1, several)]
            node = helper.make_node(kind, names, [name, *others], **attributes)
            self.nodes.append(node)
            self._made[does] = self._by_output[name] = node
        return str(self._made[does].output[0])

    def _fresh(self, kind: str) -> str:
        name = ""
        while not name or name in self._taken:
            self._count += 1
            name = f"/{kind}/{self._count}"
        return name


def is_same_size(one: Any, other: Any) -> bool:
    """Return whether two sizes are equal, the rows' only to itself."""
    return is_symbol(one) == is_symbol(other) and (is_symbol(one) or one == other)
