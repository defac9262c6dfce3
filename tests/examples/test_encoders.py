"""Frozen encoders as in `examples/encoders/`: real sentence models, fetched from registries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace
from headrace.stream.rows import frozen
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, load
from tests.support.json_rows import records_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "encoders"
SPAM = ROOT / "producers" / "data" / "text.csv.gz"
TEXTS = [
    "You have won a free prize, call now",
    "Claim your reward today, it costs nothing",
    "Shall we have lunch tomorrow?",
    "Are you free to eat at noon?",
    "lunch",
    "naïve 日本語 🙂 " * 200,
]


def run(script: str, folder: Path, **env: str) -> Path:
    command = [sys.executable, str(EXAMPLES / script), str(folder)]
    subprocess.run(command, check=True, env=os.environ | env)
    return folder


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("minilm.py", tmp_path_factory.mktemp("encoders") / "minilm")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*install, "wordllama==0.4.0.post1"], check=True)
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return run("static_vectors.py", tmp_path_factory.mktemp("encoders") / "w", PYTHONPATH=paths)


def task_with(folder: Path) -> Task:
    """Return the task of the example, beside the folder."""
    path = folder.parent / "spam.toml"
    path.write_text((EXAMPLES / "spam.toml").read_text().replace('"minilm"', f'"{folder.name}"'))
    if folder.name != "minilm":
        path.write_text(path.read_text().replace("384", "256"))
    return load(path)


def vectors(task: Task, texts: list[str]) -> NDArray[np.float64]:
    events = [{"id": at, "label": "ham", "text": text} for at, text in enumerate(texts)]
    rows, refused = Normalizer(task).normalize(records_of(events))
    assert not refused
    return rows.numeric


@pytest.mark.parametrize("encoder", ["minilm", "static"])
def test_a_sentence_s_numbers_tell_what_it_is_about(
    encoder: str, request: pytest.FixtureRequest
) -> None:
    found = vectors(task_with(request.getfixturevalue(encoder)), TEXTS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)))
    alike = found @ found.T
    assert min(alike[0, 1], alike[2, 3]) > max(alike[0, 2], alike[1, 2])


@pytest.mark.parametrize("encoder", ["minilm", "static"])
def test_its_numbers_do_not_depend_on_company(encoder: str, request: pytest.FixtureRequest) -> None:
    task = task_with(request.getfixturevalue(encoder))
    together = vectors(task, TEXTS)
    for at, text in enumerate(TEXTS):
        frozen._loaded.cache_clear()
        assert vectors(task, [text]).tobytes() == together[at].tobytes()


def test_messages_are_told_apart_better_than_by_words_alone(minilm: Path) -> None:
    plain = load(ROOT / "examples" / "spam.toml")
    scores = [
        headrace.evaluate(task, SPAM, limit=3000).metrics["all"]
        for task in (task_with(minilm), plain)
    ]
    assert scores[0]["accuracy"] > scores[1]["accuracy"] + 0.002
    assert scores[0]["log_loss"] < scores[1]["log_loss"]
