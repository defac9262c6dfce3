"""The file of a Keras model: read, vetted and named by its content; Keras itself is not needed.

A task names it by its path, `keras:PATH`. Once read it is called `keras:PATH#sha256:HEX`, and
where the place does not matter `keras:sha256:HEX`: what depends on a model depends on its content,
which is its architecture and its weights. Neither the time of saving nor how it was compiled and
trained is part of that.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from headrace.model.registry import told
from headrace.model.spec import LOADED

PREFIX = LOADED  # of the name of a network that a file holds
MOST_BYTES = 256 << 20  # of a file, and of what is packed in it
MOST_CONFIG = 4 << 20  # of its config.json
MOST_GROUPS = 10_000  # of arrays in it
MISSING = "it needs Keras: pip install 'headrace[keras]'"

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_OPTIMIZER = "/optimizer/"  # where its state lies among the weights
_READ = re.compile(r"keras:(?:(.*)#)?sha256:([0-9a-f]{64})", re.DOTALL)
_MODULES = (
    "keras",
    "keras.layers",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.src.models.functional",
)
_OPERATIONS = "keras.src.ops."  # what stands in a model for an expression such as `x * 2`
_OF_PYTHON = ("__tuple__", "__keras_tensor__", "__slice__", "__ellipsis__")
_LAYERS = """
InputLayer Dense EinsumDense Activation ReLU LeakyReLU PReLU ELU Softmax Identity
Flatten Reshape Permute RepeatVector
Conv1D Conv2D Conv3D DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
Conv1DTranspose Conv2DTranspose
MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling1D UpSampling2D
Add Subtract Multiply Average Maximum Minimum Concatenate Dot
BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization
Normalization Rescaling
SimpleRNN GRU LSTM RNN SimpleRNNCell GRUCell LSTMCell Bidirectional TimeDistributed
Attention AdditiveAttention MultiHeadAttention GroupQueryAttention
"""
LAYERS = frozenset(_LAYERS.split())
"""Those that are functions of their inputs and weights. Others run code that a file brings, read
other files, or draw random numbers."""

_held: dict[str, bytes] = {}  # by identity: what this process has read


def is_keras(name: str | None) -> bool:
    """Return whether a name of a network stands for a Keras model."""
    return bool(name and name.startswith(PREFIX))


def identity(name: str) -> str:
    """Return `keras:sha256:HEX` of a model that was read."""
    found = _READ.fullmatch(name)
    return f"{PREFIX}sha256:{found[2]}" if found else name


def path(name: str) -> str | None:
    """Return the path of a model that was read; None if a program gave it."""
    found = _READ.fullmatch(name)
    return found[1] if found else None


def is_pinned(name: str) -> bool:
    """Return whether a name says the content already: its file is read when it is needed."""
    return bool(_READ.fullmatch(name))


def pin(file: Path) -> str:
    """Read the file of a model, and return its full name, with path and content.

    Raises:
        ValueError: the file cannot be read, or is no Keras model that can be learned.
    """
    file = file.absolute()
    try:
        found = hold(_read(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return f"{PREFIX}{file}#{found.removeprefix(PREFIX)}"


def hold(data: bytes) -> str:
    """Vet the bytes of a file, keep them for `content`, and return their identity.

    Raises:
        ValueError: they are no Keras model that can be learned.
    """
    name = f"{PREFIX}sha256:{_digest(data)}"
    _held.setdefault(name, data)
    return name


def content(name: str) -> bytes:
    """Return the bytes of the file of a model.

    Raises:
        ValueError: the file is gone, or its content is another than it was.
    """
    known = identity(name)
    if known not in _held:
        file = path(name)
        if not file:
            raise ValueError(
                "a program gave that model, and this one did not: give it again, as it was, or "
                "save it and name its file in the task"
            )
        now = hold(_read(Path(file)))
        if now != known:
            raise ValueError(f"has changed: now it is {now.removeprefix(PREFIX)}; put it back")
    return _held[known]


def parts(data: bytes) -> tuple[Any, bytes, int]:
    """Return the architecture in vetted bytes, the file of the weights, and how many these are."""
    config, weights = _unzipped(data)
    own = (array for name, array in _arrays(weights) if not name.startswith(_OPTIMIZER))
    return _architecture(config), weights, sum(array.size for array in own)


def _read(file: Path) -> bytes:
    """Return the bytes of a file that is not too large."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # of a NUL in it
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot be read: {why}") from error
    if len(data) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 20} MiB")
    return data


def _digest(data: bytes) -> str:
    """Vet a file, and digest its architecture and its weights."""
    config, weights = _unzipped(data)
    total = sha256(json.dumps(_architecture(config), sort_keys=True).encode())
    for name, array in _arrays(weights):
        if not name.startswith(_OPTIMIZER):
            total.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(array.tobytes())
    return total.hexdigest()


def _unzipped(data: bytes) -> tuple[Any, bytes]:
    """Return the configuration and the file of weights."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = {entry.filename: entry for entry in file.infolist()}
            if len(entries) < len(file.infolist()):
                raise ValueError("a name comes twice in it")
            if extra := entries.keys() - {_CONFIG, _WEIGHTS, "metadata.json"}:
                raise ValueError(f"it holds {sorted(extra)[0]!r}, which no such model needs")
            if sum(entry.file_size for entry in entries.values()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
            if entries[_CONFIG].file_size > MOST_CONFIG:
                raise ValueError(f"its {_CONFIG} has more than {MOST_CONFIG >> 20} MiB")
            return json.loads(file.read(_CONFIG)), file.read(_WEIGHTS)
    except Exception as error:  # zipfile, zlib and json each have their own for what is broken
        why = str(error) if type(error) is ValueError else told(error)
        raise ValueError(f"expected a file that Keras 3 saved (.keras): {why}") from error


def _architecture(part: Any, depth: int = 0) -> Any:
    """Vet a part of a configuration; return it without what is none of the architecture."""
    if depth > 100:
        raise ValueError("its layers are nested too deep")
    if isinstance(part, list):
        return [_architecture(each, depth + 1) for each in part]
    if not isinstance(part, dict):
        return part
    if "class_name" in part:
        _check_class(part)
    left = part.keys() - {"compile_config", "shared_object_id"}
    return {key: _architecture(part[key], depth + 1) for key in left}


def _check_class(part: dict[str, Any]) -> None:
    """Make sure that what is to be made is one of Keras' own parts, and brings no code."""
    module, kind, registered = (
        part.get(key) for key in ("module", "class_name", "registered_name")
    )
    if module is None and kind in _OF_PYTHON:
        return
    inner = part.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    what = f"layer {name!r} ({kind})" if module == "keras.layers" else f"{module}.{kind}"
    ours = isinstance(module, str) and (module in _MODULES or module.startswith(_OPERATIONS))
    if not ours or registered not in (None, kind):
        raise ValueError(f"{str(what)[:120]} is a custom object, and no code of a file is run")
    if module == "keras.layers" and kind not in LAYERS:
        raise ValueError(
            f"{what[:120]} is not learned: a layer has to be a function of its inputs and weights, "
            "that draws nothing by chance and runs no code of its own; leave it out"
        )


def _arrays(weights: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a file of weights by path, in the order of paths."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(MISSING) from error
    budget, groups = len(weights), 0
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            waiting = ["/"]
            while waiting:
                groups += 1
                group = file[waiting.pop()]
                for key in sorted(group, reverse=True):
                    link, item = group.get(key, getlink=True), None
                    if isinstance(link, h5py.HardLink):
                        item = group[key]
                    name = f"{group.name.rstrip('/')}/{key}"
                    if isinstance(item, h5py.Group) and groups + len(waiting) < MOST_GROUPS:
                        waiting.append(name)
                    elif isinstance(item, h5py.Dataset) and _is_plain(item):
                        budget -= item.nbytes
                        if budget < 0:
                            raise ValueError("declares more than it holds")
                        yield name, item[()]
                    else:
                        raise ValueError(f"{name[:80]} is no plain array of numbers")
    except Exception as error:  # h5py has many for what is broken
        why = str(error) if type(error) is ValueError else told(error)
        raise ValueError(f"{_WEIGHTS}: {why}") from error


def _is_plain(item: Any) -> bool:
    """Return whether an array lies in the file itself, as large as it says it is."""
    lies_here = not item.external and not item.is_virtual and item.chunks is None
    whole = item.shape is not None and item.id.get_storage_size() == item.nbytes
    return bool(lies_here and whole and item.dtype.kind in "fiub")
