"""A state's arrays as bytes: laid out as safetensors, and nothing else when they are read.

Safetensors: github.com/huggingface/safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype ("float32") and the shape by name; (-1,): any length, up to a bound of its own."""

_HEADER_BYTES = 1 << 20
_ANY_LENGTH = {  # bytes
    "recent": 64 << 20,
    "waiting_ids": 1 << 30,
    "held_labels": 64 << 20,
    "turns_newest": 1 << 32,
    "left_rows": 1 << 37,
}
_DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[_Count]
    data_offsets: tuple[_Count, _Count]


def pack(tensors: Mapping[str, NDArray[Any]]) -> list[memoryview]:
    """Lay arrays out as safetensors does, in pieces: the header, then the arrays, not copied.

    Its own writer would hold up the learner's thread, and take as much memory again.
    """
    header, end = {}, 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + array.nbytes
        header[name] = _Tensor(_DTYPES.get(array.dtype.name, ""), list(array.shape), (begin, end))
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    first = memoryview(len(text).to_bytes(8, "little") + text)
    flat = (np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8) for name in header)
    return [first, *(array.data for array in flat)]


def unpack(data: bytes, shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Return the arrays that `pack` laid out.

    Raises:
        ValueError: they are not exactly those of `shapes`, one after the other.
    """
    check(data, len(data), shapes)
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error


def shapes_of(tensors: Mapping[str, NDArray[Any]]) -> Shapes:
    """Return what `unpack` has to be told of such arrays."""
    shapes = {name: (array.dtype.name, array.shape) for name, array in tensors.items()}
    return shapes | {name: ("uint8", (-1,)) for name in shapes.keys() & _ANY_LENGTH}


def most_bytes(shapes: Shapes) -> int:
    """Bound what `pack` makes of such arrays."""
    return 8 + _HEADER_BYTES + sum(_size_bytes(name, *each) for name, each in shapes.items())


def _size_bytes(name: str, dtype: str, shape: Sequence[int]) -> int:
    if shape == (-1,):
        return _ANY_LENGTH[name]
    return math.prod(shape) * np.dtype(dtype).itemsize


def check(data: bytes | memoryview, size: int, shapes: Shapes) -> None:
    """Raise ValueError unless bytes hold exactly the arrays of `shapes`, one after the other.

    Args:
        data: the first of them, with the header.
        size: how many there are.
    """
    length = int.from_bytes(data[:8], "little")
    if size < 8 or length > min(_HEADER_BYTES, size - 8):
        raise ValueError(f"its header cannot have {length} bytes")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, _Tensor])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not of safetensors: {error}") from error
    if header.keys() != shapes.keys():
        raise ValueError(f"it lacks or adds arrays: {sorted(header.keys() ^ shapes.keys())[:5]}")
    end = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1].data_offsets):
        _check_tensor(name, tensor, *shapes[name])
        begin, stop = tensor.data_offsets
        if begin != end or stop - begin != _size_bytes(name, shapes[name][0], tensor.shape):
            raise ValueError(f"{name!r} does not take the bytes {begin} to {stop}")
        end = stop
    if (rest := size - 8 - length - end) > 0:
        raise ValueError(f"{rest} bytes belong to no array")
    if rest < 0:
        raise ValueError(f"it ends {-rest} bytes before its arrays do")


def _check_tensor(name: str, tensor: _Tensor, dtype: str, shape: tuple[int, ...]) -> None:
    if tensor.dtype != _DTYPES.get(np.dtype(dtype).name):
        raise ValueError(f"{name!r} is {tensor.dtype}, expected {dtype}")
    if shape == (-1,):
        if len(tensor.shape) != 1 or tensor.shape[0] > _ANY_LENGTH[name]:
            raise ValueError(
                f"{name!r} is {tensor.shape}, expected up to {_ANY_LENGTH[name]} bytes"
            )
    elif tensor.shape != list(shape):
        raise ValueError(f"{name!r} is {tensor.shape}, expected {list(shape)}")
