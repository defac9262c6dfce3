"""Frozen encoders: what an ONNX model makes of a text or an image, as columns of numbers.

Each value is run alone, by one thread: so its numbers are a function of it to the bit. In a batch
the kernels may round otherwise, texts are padded, and quantised models share a scale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.encoders import Encoder
from headrace.model.registry import told
from headrace.stream.errors import TaskError
from headrace.stream.rows.encoder_files import Files, check_model, files_of
from headrace.stream.task.features import Frozen, Image

Vector = NDArray[np.float64]

CACHE_BYTES = 64 << 20  # of the answers that an encoder keeps
ENTRY_BYTES = 300  # of an answer beside its numbers
TOKENS = 256  # of a text, where its tokenizer says nothing
MOST_TOKENS = 512
CHARACTERS = 32  # of a text that are read for each token
TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
OUTPUTS = ("sentence_embedding", "last_hidden_state")  # of a model that has several
INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def load(name: str, feature: Frozen) -> Encoder:
    """Return the encoder of a feature: of n texts, or images in bytes, float64[n, dimensions].

    What it makes NaN of, and an empty text, is missing.

    Raises:
        TaskError: a file or a library is not there, or the model is none of its kind.
    """
    shape = feature.shape if isinstance(feature, Image) else None
    return _loaded(files_of(name, feature), feature.dimensions, shape)


@lru_cache(maxsize=8)
def _loaded(files: Files, dimensions: int, shape: tuple[int, int, int] | None) -> Encoder:
    """Load an encoder once for all the normalisers of a process."""
    try:
        model, *tokenizer = files.read()
        check_model(model)
        run = _image_runner(model, shape) if shape else _text_runner(model, *tokenizer)
        _try(run, dimensions)
    except ImportError as error:
        raise TaskError(
            f"{files.key}: needs {error.name}: pip install 'headrace[encoders]'"
        ) from error
    except Exception as error:  # whatever a stranger's file does
        raise TaskError(f"{files.key}: {_reason(error)}") from error
    return _Cached(run, dimensions)


def _try(run: Callable[[Any], Vector | None], dimensions: int) -> None:
    """Make sure that a model gives as many numbers as are used, and the same ones each time.

    Raises:
        ValueError: it does not.
    """
    first, second = run(None), run(None)
    if first is None or second is None or len(first) < dimensions:
        width = 0 if first is None else len(first)
        raise ValueError(
            f"the model gives {width} numbers, expected dimensions = {dimensions} or more"
        )
    if not np.array_equal(first, second, equal_nan=True):
        raise ValueError("the model gives other numbers each time: expected the same")


def _reason(error: Exception) -> str:
    """Return what an error of ours, or of a library, says; its class where it says nothing."""
    return told(error).removeprefix(f"{type(error).__name__}: ").partition("\n")[0]


class _Cached:
    """Encode values one by one, and keep the newest answers; for all threads of a process."""

    def __init__(self, run: Callable[[Any], Vector | None], dimensions: int) -> None:
        self._run, self._missing = run, np.full(dimensions, np.nan)
        self._most = CACHE_BYTES // (8 * dimensions + ENTRY_BYTES)
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = Lock()

    def __call__(self, values: Sequence[Any]) -> list[Vector]:
        return list(map(self._one, values))

    def _one(self, value: str | bytes) -> Vector:
        data = value.encode() if isinstance(value, str) else value
        key = blake2b(data, digest_size=32).digest()
        with self._lock:
            found = self._kept.pop(key, None)
        if found is None:
            with _panics_are_errors():
                numbers = self._run(value) if value else None
            found = self._missing
            if numbers is not None:
                found = numbers[: len(self._missing)].copy()
        with self._lock:
            self._kept[key] = found
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found


@contextmanager
def _panics_are_errors() -> Iterator[None]:
    """Raise a panic of Rust's, which is no Exception, as one."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


def _session(model: bytes) -> Any:
    """Return a model that is run by one thread, the same way each time.

    Raises:
        ValueError: it is none that can be run here.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class of error for each code
        raise ValueError(f"the model cannot be loaded: {_short(error)}") from error


def _short(error: Exception) -> str:
    """Return what onnxruntime says without its own places: `[ONNXRuntimeError] : 1 : FAIL : ...`"""
    return " ".join(str(error).rpartition("[ONNXRuntimeError] : ")[2].split())[:200]


def _output(session: Any) -> tuple[str, int]:
    """Choose the output that is read, and say how many axes it has.

    Raises:
        ValueError: there are several, none of a name that tells.
    """
    outputs = {each.name: each for each in session.get_outputs()}
    names = [*outputs] if len(outputs) == 1 else [name for name in OUTPUTS if name in outputs]
    if not names:
        raise ValueError(
            f"the model has the outputs {', '.join(outputs)}: expected one, or "
            f"{' or '.join(OUTPUTS)}"
        )
    return names[0], len(outputs[names[0]].shape)


def _numbers(session: Any, output: str, feed: dict[str, Any]) -> NDArray[Any]:
    """Run a model for one value, and return its output without the axis of the batch."""
    (found,) = session.run([output], feed)
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape[:1] != (1,):
        raise ValueError(f"the model's output {output} is not floats of one value")
    return np.asarray(found[0], np.float64)


def _text_runner(model: bytes, tokenizer: bytes) -> Callable[[str | None], Vector | None]:
    """Return what makes numbers of a text, and of None those of its largest token, many times.

    The vectors of tokens are averaged, and scaled to the length 1; one vector is taken as it is.
    """
    from tokenizers import Tokenizer

    try:
        with _panics_are_errors():
            tokens = Tokenizer.from_buffer(tokenizer)
            longest = min((tokens.truncation or {}).get("max_length", TOKENS), MOST_TOKENS)
            tokens.no_padding()
            tokens.enable_truncation(longest)
            tokens.encode("a")
    except Exception as error:
        raise ValueError(f"tokenizer.json cannot be used: {_reason(error)}") from error
    if getattr(tokens.model, "dropout", None):
        raise ValueError("tokenizer.json has a dropout, and splits a text by chance: expected none")
    largest = max(tokens.get_vocab().values(), default=0)
    session = _session(model)
    inputs = {each.name: INTEGERS.get(each.type) for each in session.get_inputs()}
    if "input_ids" not in inputs or not inputs.keys() <= TEXT_INPUTS or None in inputs.values():
        raise ValueError(
            f"the model has the inputs {', '.join(inputs)}: expected integers, input_ids, and "
            "attention_mask and token_type_ids if it needs them"
        )
    output, axes = _output(session)
    if axes not in (2, 3):
        raise ValueError(f"the model's output {output} has {axes} axes, expected 2 or 3")

    def run(text: str | None) -> Vector | None:
        ids, types = [largest] * longest, [0] * longest
        if text is not None:
            found = tokens.encode(text[: CHARACTERS * longest])
            ids, types = found.ids, found.type_ids
        if not ids:
            return None
        given = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        feed = {name: np.array([given[name]], kind) for name, kind in inputs.items()}
        vectors = _numbers(session, output, feed)
        if vectors.ndim == 1:
            return vectors
        if vectors.shape[0] != len(ids) or vectors.ndim != 2:
            raise ValueError(f"the model gives {[*vectors.shape]} numbers of {len(ids)} tokens")
        mean: Vector = vectors.mean(0)
        return mean / max(float(np.sqrt(np.square(mean).sum())), 1e-12)

    try:
        run(None)
    except Exception as error:
        raise ValueError(
            f"the model does not take {longest} tokens up to {largest} of tokenizer.json: "
            f"{_short(error)}"
        ) from error
    return run


def _image_runner(
    model: bytes, shape: tuple[int, int, int]
) -> Callable[[bytes | None], Vector | None]:
    """Return what makes numbers of an image in bytes, and of None those of a black one."""
    session = _session(model)
    inputs = session.get_inputs()
    height, width, channels = shape
    orders = {(2, 0, 1): (channels, height, width), (0, 1, 2): shape}  # NCHW, NHWC
    types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    fits = [
        order
        for order, sizes in orders.items()
        if len(inputs) == 1 and inputs[0].type in types and _takes(inputs[0].shape, (1, *sizes))
    ]
    if not fits:
        there = "; ".join(f"{each.name} {each.shape} {each.type}" for each in inputs)
        raise ValueError(
            f"the model has the inputs {there}: expected one of float or uint8, "
            f"{[1, *orders[2, 0, 1]]} or {[1, *shape]}"
        )
    output, axes = _output(session)
    if axes != 2:
        raise ValueError(f"the model's output {output} has {axes} axes, expected 2")
    order, kind = fits[0], types[inputs[0].type]

    def run(pixels: bytes | None) -> Vector | None:
        image = np.frombuffer(pixels or bytes(height * width * channels), np.uint8).reshape(shape)
        values = image if kind is np.uint8 else image.astype(np.float32) / np.float32(255)
        feed = np.ascontiguousarray(values.transpose(order))[None]
        return _numbers(session, output, {inputs[0].name: feed})

    return run


def _takes(declared: Sequence[Any], sizes: tuple[int, ...]) -> bool:
    """Say whether an input takes an array of some shape; axes without a number take any."""
    return len(declared) == len(sizes) and all(
        not isinstance(each, int) or each == size
        for each, size in zip(declared, sizes, strict=True)
    )
