"""Files that are half written: gone at the end, also where a process is told to end at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_paths: set[Path] = set()


@contextmanager
def removed_after(path: Path) -> Iterator[None]:
    """Remove a file when the block ends, if it is still there, or the process is interrupted."""
    _paths.add(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _paths.discard(path)


def remove_all() -> None:
    """Remove what is half written: this process ends now."""
    for path in list(_paths):
        with suppress(OSError):
            path.unlink(missing_ok=True)
