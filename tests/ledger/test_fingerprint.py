from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from headrace.stream.ledger import fingerprint
from headrace.stream.task import parse
from headrace.stream.task.plugins import FROZEN
from headrace.stream.task.quantity import READING
from tests.support.events import TASK

SOURCES = fingerprint.sources(fingerprint.ROW_TO_STATE)
MODEL = sorted((fingerprint.ROOT / "model").rglob("*.py"))
NAMES = {path.relative_to(fingerprint.ROOT).as_posix() for path in SOURCES}


def test_all_that_decides_a_row_or_the_state_counts() -> None:
    """What a list by hand had forgotten, and the whole core."""
    forgotten = {
        *("rows/calendar", "rows/classes", "rows/units", "formats/codec", "formats/scalars"),
        *("task/schema", "task/compatibility", "training/recent"),
    }
    assert {f"stream/{name}.py" for name in forgotten} <= NAMES
    model = {path.relative_to(fingerprint.ROOT).as_posix() for path in MODEL}
    beside = {"model/__init__.py", "model/predictor.py"}  # which learns nothing
    assert {name for name in NAMES if name.startswith("model/")} >= model - beside
    assert not {name for name in NAMES if "cli" in name or name == "stream/service/service.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_decides_the_fingerprint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint.of_code()
    read = Path.read_bytes

    def changed(self: Path) -> bytes:
        return read(self) + (b"\n# changed\n" if self == path else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    fingerprint.of_code.cache_clear()
    assert fingerprint.of_code() != before
    monkeypatch.undo()
    fingerprint.of_code.cache_clear()
    assert fingerprint.of_code() == before


def test_what_the_text_says_is_what_the_parser_says() -> None:
    found = set(SOURCES)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                assert set(fingerprint._files(name)) <= found, (path, name)


def test_every_library_under_it_counts() -> None:
    roots: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.split(".")[0])
    foreign = roots - set(sys.stdlib_module_names) - {"headrace"}
    of_some_tasks = {*FROZEN, "keras"}  # `plugins.versions` tells them
    assert foreign - {"h5py"} <= {*fingerprint.LIBRARIES, *of_some_tasks}  # which only reads


def test_a_feature_may_be_called_kind() -> None:
    """Its coming, going and changing is told, and that of others beside it."""
    number, text = {"kind": "number", "min": None}, {"kind": "text", "max_tokens": 256}
    before = {"features": {"kind": number, "a": number}}
    now = {"features": {"kind": text, "b": text}}
    assert fingerprint.differences(before, now) == [
        'features.a: {"kind": "number", "min": null} -> not there',
        'features.b: not there -> {"kind": "text", "max_tokens": 256}',
        'features.kind.kind: "number" -> "text"',
    ]


def test_what_says_how_texts_are_read_counts_only_where_it_is_said() -> None:
    """Ledgers of before there were such keys lack them, and go on."""
    plain = fingerprint.settings_of(parse(TASK, "t"))
    assert not {"dayfirst", "non_finite"} & plain["input"].keys()
    assert plain["target"].keys().isdisjoint(READING)
    assert plain["features"]["x"].keys() & {*READING} == {"unit", "missing"}
    assert "boolean" not in plain["features"]["color"]
    for old, new in (
        ('time = "time"', 'time = "time"\ndayfirst = false'),
        ("max_bytes = 4096", 'max_bytes = 4096\nnon_finite = "missing"'),
        ('y = { kind = "number" }', 'y = { kind = "number", decimal = "," }'),
        ('color = { kind = "category" }', 'color = { kind = "category", boolean = true }'),
    ):
        other = parse(TASK.replace(old, new), "t")
        assert fingerprint.of_task(other) != fingerprint.of_task(parse(TASK, "t")), new
