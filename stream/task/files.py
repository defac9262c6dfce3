"""Task files, wherever they lie, read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.stream.errors import TaskError

MOST_BYTES = 16 << 20  # of a task file


def read(path: str | Path) -> tuple[str, str, Path | None]:
    """Return the text of a task file, what it is called, and the folder that it lies in.

    There is no folder where it is named by a URL: nothing but the task is read from there.

    Raises:
        TaskError: it cannot be read, or is no text of a task's size.
        UsageError: there is no driver for such a URL.
        StoreError: what it names cannot be reached.
    """
    if "\0" in str(path):
        raise TaskError(f"{str(path)!r}: cannot be read: there is a NUL in it")
    if "://" in str(path):
        return _read_url(str(path))
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _text(file.read(MOST_BYTES + 1), str(path)), str(path), path.parent.absolute()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error


def _read_url(url: str) -> tuple[str, str, Path | None]:
    # By name: how a task is fetched is no part of the code that a state depends on.
    storage: Any = import_module("headrace.stream.storage")
    if url.startswith(("file://", "local://")):
        return read(storage.local_path(url))
    place, _, name = url.rpartition("/")
    if not name or place.endswith(":/"):
        raise TaskError(f"{url}: names no file: expected such as s3://bucket/task.toml")
    store = storage.open_store(place)
    origin = f"{store.place.rstrip('/')}/{name}"
    try:
        size = store.size(name)
        data = store.read(name, size) if size <= MOST_BYTES else bytes(MOST_BYTES + 1)
    except FileNotFoundError:
        raise TaskError(f"{origin}: there is no such file") from None
    except ValueError:  # no name of a file
        raise TaskError(
            f"{origin}: names no file: expected such as s3://bucket/task.toml"
        ) from None
    return _text(data, origin), origin, None


def _text(data: bytes, origin: str) -> str:
    if len(data) > MOST_BYTES:
        raise TaskError(f"{origin}: has more than {MOST_BYTES >> 20} MiB; is it a task file?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TaskError(f"{origin}: not UTF-8 text") from error
