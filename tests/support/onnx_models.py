"""Tiny ONNX models and a tokenizer, as folders that a task's `encoder` may name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WORDS = ["[UNK]", "free", "prize", "now", "hello", "see", "you", "lunch", "the"]
Shape = Sequence[int | str]
Forms = Mapping[str, tuple[int, Shape]]  # of inputs and outputs: type and shape


def tokenizer(folder: Path, words: Sequence[str] = WORDS, **more: Any) -> None:
    """Write a tokenizer that splits at whitespace, and knows some words."""
    table: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: at for at, word in enumerate(words)},
            "unk_token": "[UNK]",
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(table | more))


def truncated(tokens: int) -> dict[str, Any]:
    """Return what a tokenizer says that cuts texts."""
    return {
        "truncation": {
            "direction": "Right",
            "max_length": tokens,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    }


def save(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Forms,
    outputs: Forms,
    weights: Mapping[str, NDArray[Any]],
    **more: Any,
) -> Path:
    """Write a model of nodes; return the folder."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *form) for name, form in inputs.items()],
        [helper.make_tensor_value_info(name, *form) for name, form in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", 17), *more.pop("imports", [])]
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save_model(model, folder / "model.onnx", **more)
    return folder


def table(width: int = 6, words: int = len(WORDS)) -> NDArray[np.float32]:
    """Return a vector for each word."""
    return np.random.default_rng(3).normal(size=(words, width)).astype(np.float32)


def text_model(folder: Path, vectors: NDArray[np.float32] | None = None, tail: str = "") -> Path:
    """Write a model that looks words up: a vector for each token.

    Args:
        tail: `quantised`, and all that is run at once shares a scale; `pooled`, and it gives their
            mean; `even`, and it fails at an odd number of tokens.
    """
    vectors = table() if vectors is None else vectors
    ids = {"input_ids": (TensorProto.INT64, ["batch", "tokens"])}
    width = vectors.shape[1]
    axes: Shape = ["batch", width] if tail == "pooled" else ["batch", "tokens", width]
    weights: dict[str, NDArray[Any]] = {"table": vectors}
    found = "found" if tail else "out"
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [found])]
    if tail == "pooled":
        nodes.append(helper.make_node("ReduceMean", ["found"], ["out"], axes=[1], keepdims=0))
    if tail == "quantised":
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["found"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
        ]
    if tail == "even":
        weights |= {"pairs": np.array([0, -1, 2, width]), "flat": np.array([0, -1, width])}
        weights["pairs"][0] = weights["flat"][0] = 1
        nodes += [
            helper.make_node("Reshape", ["found", "pairs"], ["paired"]),
            helper.make_node("Reshape", ["paired", "flat"], ["out"]),
        ]
    save(folder, nodes, ids, {"out": (TensorProto.FLOAT, axes)}, weights)
    tokenizer(folder)
    return folder


def image_model(
    folder: Path, sizes: Shape, matrix: NDArray[np.float32], *, byte: bool = False
) -> Path:
    """Write a model that flattens an image and multiplies it by a matrix."""
    kind = TensorProto.UINT8 if byte else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["out"]),
    ]
    given = {"image": (kind, ["batch", *sizes])}
    out = {"out": (TensorProto.FLOAT, ["batch", matrix.shape[1]])}
    return save(folder, nodes, given, out, {"matrix": matrix})
