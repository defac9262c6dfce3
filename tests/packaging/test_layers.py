"""What imports cannot be held to by the contract in pyproject.toml: libraries, and names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src/headrace/cli", "src/headrace/demo", "stream", "model", "producers")
FILES = sorted(
    [
        *(ROOT / "src/headrace").glob("*.py"),
        *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
    ]
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def users(library: str) -> set[str]:
    return {
        names(path)
        for path in FILES
        if any(name.split(".")[0] == library for name in imports(path))
    }


def test_the_walk_sees_the_tree() -> None:
    assert len(FILES) > 40
    assert "headrace.stream.task" in imports(ROOT / "stream/rows/normalizer.py")


def test_the_core_knows_only_arrays() -> None:
    allowed = {"jax", "flax", "optax", "numpy", "headrace"}
    standard = {"__future__", "typing", "collections", "dataclasses", "itertools", "functools"}
    standard |= {"copy", "math", "os", "platform"}  # os and platform: XLA's flags
    for path in FILES:
        if path.is_relative_to(ROOT / "model"):
            roots = {name.split(".")[0] for name in imports(path)}
            assert roots <= allowed | standard, names(path)


def test_nobody_imports_by_the_names_of_the_folders() -> None:
    """As `model` or `stream`, which a user's own folder may be called."""
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"stream", "model", "producers", "bench", "cli", "demo"}, names(path)


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("faust", {"stream/engines/faust.py", "stream/engines/credentials.py"}),
        (
            "confluent_kafka",
            {
                "stream/kafka/source.py",
                "stream/kafka/metadata.py",
                "stream/kafka/sink.py",
                "stream/kafka/transactions.py",
                "stream/kafka/inbox.py",
                "stream/kafka/watch.py",
                "stream/kafka/diagnosis.py",
            },
        ),
    ],
)
def test_each_client_has_one_door(library: str, door: set[str]) -> None:
    assert users(library) == door


@pytest.mark.parametrize("library", ["pickle", "dill", "joblib", "cloudpickle", "marshal", "yaml"])
def test_nothing_is_unpickled(library: str) -> None:
    assert users(library) == set()


def test_no_file_is_long() -> None:
    long = {names(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 360}
    assert not long


def test_importing_it_starts_no_backend_of_jax() -> None:
    """Else a start takes longer, and a process that is forked from one that imported it hangs."""
    code = (
        "import headrace.cli.pipeline, headrace.model.learner, headrace.stream.service.learn\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
