"""Make an encoder of static word vectors, WordLlama's: 256 numbers, some 30 times faster.

    pip install 'headrace[encoders]' onnx safetensors && pip install --no-deps wordllama
    python static_vectors.py wordllama

A model needs no layers: this one looks a vector up for each token, and headrace takes their mean.
The wheel of wordllama (MIT) holds vectors and tokenizer; nothing of it is imported.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

PLACES = ["batch", "tokens"]


def convert(folder: Path) -> None:
    """Write the vectors as an ONNX model into a folder, and the tokenizer beside it."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise SystemExit("wordllama is not installed: pip install --no-deps wordllama")
    package = Path(spec.origin).parent
    vectors = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["vectors", "input_ids"], ["found"]),
            helper.make_node("Cast", ["found"], ["last_hidden_state"], to=TensorProto.FLOAT),
        ],
        "static_vectors",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, PLACES)],
        [
            helper.make_tensor_value_info(
                "last_hidden_state", TensorProto.FLOAT, [*PLACES, vectors.shape[1]]
            )
        ],
        [numpy_helper.from_array(vectors, "vectors")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, folder / "model.onnx")
    shutil.copy(package / "tokenizers" / "l2_supercat_tokenizer_config.json", folder)
    (folder / "l2_supercat_tokenizer_config.json").replace(folder / "tokenizer.json")


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
