"""The file that keys the hashes lies beside the task file, and where that is decides nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.stream.errors import TaskError
from headrace.stream.events import Records
from headrace.stream.ledger import fingerprint
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, load
from headrace.stream.task.task import validate
from tests.support.events import good, task_text

KEY = b"canary: nobody can guess this"


def keyed(folder: Path, key: bytes = KEY, named: str = "keys/hash.key") -> Path:
    """Write a task file, and the key beside it."""
    path = folder / "task.toml"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "hash.key").write_bytes(key)
    path.write_text(f'hash_key_file = "{named}"\n' + task_text("keyed"))
    return path


def ids(task: Task) -> list[int]:
    """Return what the texts and categories of an event are hashed to."""
    records = Records("x", [good(1)], [None], [0], [0], [])
    rows, refused = Normalizer(task).normalize(records)
    assert not refused
    found: list[int] = rows.ids.ravel().tolist()
    return found


def test_it_is_found_from_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = keyed(tmp_path / "a"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(path.parent)
    found = load("task.toml")
    wanted = ids(found)
    monkeypatch.chdir(elsewhere)
    assert ids(found) == ids(load(path)) == ids(load("../a/task.toml")) == wanted
    assert ids(validate(fingerprint.written(found), "saved")) == wanted
    assert ids(load(keyed(tmp_path / "b", b"another key, as good as it"))) != wanted


def test_what_it_holds_decides_and_not_where_it_lies(tmp_path: Path) -> None:
    first, moved = load(keyed(tmp_path / "a")), load(keyed(tmp_path / "b"))
    absolute = str(tmp_path / "a" / "keys" / "hash.key")
    named = load(keyed(tmp_path / "c", b"of no use", named=absolute))
    assert {fingerprint.of_task(each) for each in (first, moved, named)} == {
        fingerprint.of_task(first)
    }
    other = load(keyed(tmp_path / "d", b"another key, as good as it"))
    assert fingerprint.of_task(other) != fingerprint.of_task(first)
    told = json.dumps(fingerprint.settings_of(first))  # it stands in the ledger
    assert "hash.key" not in told
    assert "canary" not in told


def test_without_one_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(task_text("keyed"))
    assert fingerprint.settings_of(load(path))["hash_key_file"] is None


def test_a_file_that_is_not_there_is_named_in_full(tmp_path: Path) -> None:
    path = keyed(tmp_path / "a", named="none.key")
    with pytest.raises(TaskError) as caught:
        Normalizer(load(path))
    assert f"hash_key_file = {tmp_path}/a/none.key: cannot be read: No such file" in str(
        caught.value
    )
