"""Images in a stream: how fast and how well they are learned, beside Keras with the same layers."""

from __future__ import annotations

import gzip
import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.learning.table import markdown
from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import validate

HIDDEN = {"dense": [128, 128], "convolutions": [32, 32]}
NETWORKS = {"dense": "mlp", "convolutions": "cnn2d"}
CHUNKS = (32, 1)
PASSES = 5
LAST = 10_000  # images learned, of which the accuracy is told too
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_HELD = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_HEAD = ["layers", "who", "images/s", "last 10,000 learned", "held back, 1 pass", "5 passes"]


def images(data: Path, on_progress: Callable[[str], None] = lambda note: None) -> dict[str, Any]:
    """Learn the images of a data set in MNIST's files, in their order, then the same with Keras.

    Ours is what `evaluate` does with the file, from its bytes on. Of the images held back no label
    is told: so nothing is learned of them, as with Keras.

    Args:
        data: where the four files of MNIST (or of one made like it) are, as they come or unzipped.

    Returns:
        by layers and name: `images_per_second`; `last`, the accuracy on the last LAST images when
        they came; `once` and (where it was measured) `five_times`, that on those held back.

    Raises:
        UsageError: a file is not there, or not of this kind.
        HeadraceError: Keras failed.
    """
    (seen, labels), (held, held_labels) = (
        tuple(_read(data, name) for name in names) for names in (_FILES, _HELD)
    )
    again = np.tile(seen, (PASSES, 1, 1)), np.tile(labels, PASSES)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        for kind, network in NETWORKS.items():
            found[kind] = {}
            for chunk in CHUNKS:
                name = f"headrace, chunks of {chunk}" if chunk > 1 else "headrace, exact per event"
                model = {"network": network, "hidden": HIDDEN[kind], "chunk": chunk}
                found[kind][name] = told = _ours(model, seen, labels, held, held_labels, place)
                if (kind, chunk) == ("dense", 32):
                    told["five_times"] = _ours(model, *again, held, held_labels, place)["once"]
                on_progress(f"{kind}: {name}: {', '.join(filter(None, _line(told)))}")
            arrays = {"images": seen, "labels": labels, "held": held, "held_labels": held_labels}
            file = Path(place) / "images.npz"
            np.savez(file, allow_pickle=False, hidden=np.array(HIDDEN[kind]), **arrays)
            found[kind]["Keras on JAX, batches of 32"] = told = _keras(file, kind)
            on_progress(f"{kind}: Keras: {', '.join(filter(None, _line(told)))}")
            model = {"network": f"keras:{file.with_name(f'{kind}.keras')}", "chunk": CHUNKS[0]}
            told = _ours(model, seen, labels, held, held_labels, place)
            if kind == "dense":
                told["five_times"] = _ours(model, *again, held, held_labels, place)["once"]
            found[kind][f"the same Keras model in headrace, chunks of {CHUNKS[0]}"] = told
            on_progress(f"{kind}: Keras in headrace: {', '.join(filter(None, _line(told)))}")
    return found


def table(found: dict[str, Any]) -> str:
    """Write what was found as Markdown."""
    lines = [
        [f"{kind} {HIDDEN[kind]}", name, *_line(told)]
        for kind, results in found.items()
        for name, told in results.items()
    ]
    return markdown(_HEAD, lines)


def _line(told: dict[str, float]) -> list[str]:
    shares = [
        f"{told[name]:.4f}" if name in told else "" for name in ("last", "once", "five_times")
    ]
    return [f"{told['images_per_second']:,.0f}", *shares]


def _read(data: Path, name: str) -> NDArray[np.uint8]:
    """Read a file of LeCun's format IDX: two zeros, a type, the number of axes, their lengths."""
    for path in (data / name, data / f"{name}.gz"):
        if path.exists():
            content = (gzip.decompress if path.suffix else bytes)(path.read_bytes())
            axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
            lengths = content[4 : 4 + 4 * axes]
            shape = np.frombuffer(lengths[: len(lengths) // 4 * 4], ">u4").astype(int)
            if not axes or len(content) != 4 + 4 * axes + shape.prod():
                raise UsageError(f"{path}: expected bytes in the format IDX, as MNIST's files are")
            return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    raise UsageError(
        f"--data {data}: {name} (or {name}.gz) is not there; MNIST's files were expected"
    )


def _ours(
    model: dict[str, Any],
    seen: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    held: NDArray[np.uint8],
    held_labels: NDArray[np.uint8],
    place: str,
) -> dict[str, float]:
    _, height, width = seen.shape
    task = validate(
        {
            "name": "images",
            "input": {"topic": "images"},
            "target": {"field": "label", "kind": "classify", "classes": [*map(str, range(10))]},
            "features": {"image": {"kind": "image", "height": height, "width": width}},
            "model": model,
        },
        "bench",
    )
    rows, trace = Path(place) / "images.parquet", Path(place) / "trace.parquet"
    pixels = [b64encode(image.tobytes()).decode() for images in (seen, held) for image in images]
    named = [*map(str, labels.tolist()), *[None] * len(held)]
    pq.write_table(pa.table({"image": pixels, "label": named}), rows)
    done = evaluate(task, rows, trace=trace)
    if done.rejected:
        raise HeadraceError(f"{done.rejected} images refused: {done.codes}")
    said = np.array(pq.read_table(trace, columns=["prediction"])["prediction"].to_pylist())
    right = said == np.concatenate([labels, held_labels]).astype(str)
    return {
        "images_per_second": done.events / done.seconds,
        "last": float(right[: len(labels)][-LAST:].mean()),
        "once": float(right[len(labels) :].mean()),
    }


def _keras(file: Path, kind: str) -> dict[str, float]:
    script = Path(__file__).with_name("keras_images.py")
    command = ["uv", "run", "--no-project", "--script", str(script), str(file), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HeadraceError(f"Keras failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told
