"""The files of frozen encoders: where they lie, what they are, and what they may not hold."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from headrace.stream.errors import TaskError
from headrace.stream.task import Task
from headrace.stream.task.features import Frozen, Text

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
MOST_BYTES = {"model": 512 << 20, TOKENIZER: 64 << 20}
DEEPEST = 64  # messages within messages of a model

_MESSAGES = {  # of ONNX: the fields that are messages, and of which kind
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        **dict.fromkeys((5, 10), "tensor"),
        **dict.fromkeys((6, 11), "graph"),
        **dict.fromkeys((22, 23), "sparse"),
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_ELSEWHERE = {13, 14}  # of a tensor: external_data, data_location


class Files(NamedTuple):
    """Hold the files of an encoder as they are now: paths, and what tells them from others."""

    key: str  # of the task, for messages
    paths: tuple[Path, ...]  # the model; of a text also the tokenizer
    stamps: tuple[tuple[int, ...], ...]

    def read(self) -> list[bytes]:
        """Return their contents.

        Raises:
            TaskError: they cannot be read.
        """
        try:
            return [path.read_bytes() for path in self.paths]
        except OSError as error:
            raise TaskError(f"{self.key}: cannot be read: {error.strerror}") from error


def files_of(name: str, feature: Frozen) -> Files:
    """Find the files of a feature's encoder.

    Raises:
        TaskError: naming the key, the file and what was expected there.
    """
    key, given = f"features.{name}.encoder = {feature.encoder}", feature.encoder or Path()
    model = given / MODEL if os.path.isdir(given) else given
    paths = [model, model.with_name(TOKENIZER)] if isinstance(feature, Text) else [model]
    stamps = []
    for path, (what, most) in zip(paths, MOST_BYTES.items(), strict=False):
        try:
            found = path.stat()
        except OSError as error:
            raise TaskError(f"{key}: {path.name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            raise TaskError(f"{key}: {path.name} cannot be read: expected a file")
        if found.st_size > most:
            raise TaskError(
                f"{key}: {path.name} has {found.st_size:,} bytes, expected a {what} of "
                f"{most >> 20} MiB at most"
            )
        stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return Files(key, tuple(paths), tuple(stamps))


@lru_cache(maxsize=64)
def _digest(files: Files) -> str:
    return sha256(b"".join(sha256(each).digest() for each in files.read())).hexdigest()


def digests(task: Task) -> dict[str, str]:
    """Return by feature the SHA-256 of its frozen encoder's files.

    Raises:
        TaskError: they cannot be read.
    """
    return {name: _digest(files_of(name, each)) for name, each in task.frozen.items()}


def check_model(model: bytes) -> None:
    """Make sure that a model holds all its weights itself.

    One whose weights lie elsewhere names files to be read, or places in memory.

    Raises:
        ValueError: it does not, or is no ONNX model.
    """
    waiting = [("model", memoryview(model), 0)]
    graphs = 0
    while waiting:
        kind, data, depth = waiting.pop()
        graphs += kind == "graph"
        if depth > DEEPEST:
            raise ValueError("not an ONNX model: it is nested too deep")
        at = 0
        while at < len(data):
            tag, at = _varint(data, at)
            field, wire = tag >> 3, tag & 7
            if kind == "tensor" and field in _ELSEWHERE:
                value = _varint(data, at)[0] if wire == 0 else 1
                if value:
                    raise ValueError(
                        "its weights lie in other files (external data): expected all in one file"
                    )
            if wire == 0:
                at = _varint(data, at)[1]
                continue
            if wire not in (1, 2, 5):
                raise ValueError("not an ONNX model")
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            if at + size > len(data):
                raise ValueError("not an ONNX model: it ends too early")
            if wire == 2 and field in _MESSAGES[kind]:
                waiting.append((_MESSAGES[kind][field], data[at : at + size], depth + 1))
            at += size
    if not graphs:
        raise ValueError("not an ONNX model")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of variable length; return it, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not an ONNX model")
