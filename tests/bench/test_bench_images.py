"""Images in MNIST's files are learned in their order; those held back are judged, not learned."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import images
from tests.support.hostile import Run
from tests.support.keras_models import dense, saved


def write(path: Path, values: NDArray[np.uint8]) -> None:
    lengths = np.array(values.shape, ">u4").tobytes()
    content = bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return files of images whose only light says the label."""
    place = tmp_path / "data"
    place.mkdir()
    for kind, count in (("train", 400), ("t10k", 50)):
        labels = np.random.default_rng(count).integers(0, 10, count).astype(np.uint8)
        seen = np.zeros((count, 4, 4), np.uint8)
        seen.reshape(count, 16)[np.arange(count), labels] = 200
        write(place / f"{kind}-images-idx3-ubyte", seen)
        write(place / f"{kind}-labels-idx1-ubyte.gz", labels)
    return place


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_what_is_held_back_is_judged_by_what_was_learned(
    data: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    asked: list[tuple[tuple[int, ...], str]] = []

    def keras(file: Path, kind: str) -> dict[str, float]:
        asked.append((np.load(file)["images"].shape, kind))
        saved(dense(10, inputs=16, activation="softmax"), file.with_name(f"{kind}.keras"))
        return {"images_per_second": 1.0, "once": 0.5, "five_times": 0.6}

    monkeypatch.setattr(images, "_keras", keras)
    monkeypatch.setattr(images, "NETWORKS", {"dense": "mlp"})
    monkeypatch.setattr(images, "CHUNKS", (32,))
    monkeypatch.setattr(images, "LAST", 100)
    done = run("bench", "images", "--data", data, "--json")
    assert done.code == 0
    [found] = done.values
    ours: Any = found["dense"]["headrace, chunks of 32"]
    assert asked == [((400, 4, 4), "dense")]
    assert ours["last"] > 0.8
    assert ours["once"] > 0.9
    assert ours["five_times"] == 1.0
    theirs: Any = found["dense"]["the same Keras model in headrace, chunks of 32"]
    assert theirs["five_times"] > 0.9
    assert "| 0.5000 | 0.6000 |" in images.table(found)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x01\0\0\0\x05abc", b"\x89PNG and more"])
def test_a_file_that_is_missing_or_another_is_named(data: Path, run: Run, content: bytes) -> None:
    labels = data / "t10k-labels-idx1-ubyte"
    labels.with_name(f"{labels.name}.gz").unlink()
    missing = run("bench", "images", "--data", data)
    assert (missing.code, labels.name in missing.err) == (2, True)
    labels.write_bytes(content)
    other = run("bench", "images", "--data", data)
    assert other.code == 2
    assert "expected bytes in the format IDX" in other.err
