"""Where the bytes of files come from: paths, globs, standard input, pipes, URLs."""

from __future__ import annotations

import functools
import glob
import io
import os
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from headrace.stream.errors import UsageError
from headrace.stream.storage import local_path
from headrace.stream.storage.remote import glob_url, open_url

Given = str | Path | Sequence[str | Path]
"""One file or several: paths, globs, "-" for standard input, URLs that fsspec has a driver for."""

STDIN = "-"
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # open ones, as of a shell's <(...)
_CHUNK_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20  # of a stream that is read on, behind what reads it


@dataclass(frozen=True)
class Place:
    """Bytes that can be read again and again: `open` begins anew.

    Attributes:
        path: as it was given.
        size: in bytes; None where only reading it all would tell.
        read_on: say that what is open now reads it from its beginning to its end, and nothing
            after that: of what comes once, no more is kept than that takes.
    """

    path: str
    size: int | None
    open: Callable[[], BinaryIO]
    read_on: Callable[[], None] = lambda: None

    def __str__(self) -> str:
        return called(self.path)

    def is_file(self, path: Path) -> bool:
        """Return whether it is the file at a path."""
        return os.path.exists(path) and os.path.exists(self.path) and path.samefile(self.path)


def places(given: Given) -> list[Place]:
    """Return what is named, in the order given; what a glob matches in the order of its names.

    Raises:
        UsageError: nothing is named, no such file, or no file that can be read.
        StoreError: a URL cannot be reached.
    """
    if isinstance(given, str | Path):
        given = [given]
    found = [place_of(path) for each in given for path in _expand(str(each))]
    if not found:
        raise UsageError("no file is named; name at least one")
    return found


def called(given: Given) -> str:
    """Return what messages call files: the first, and how many more there are."""
    if isinstance(given, str | Path):
        return "standard input" if str(given) == STDIN else str(given)
    return called(given[0]) + (f" and {len(given) - 1} more" if len(given) > 1 else "")


def stem(given: Given) -> str:
    """Return the name of the (first) file without folder and endings, to call something else so."""
    path = str(given if isinstance(given, str | Path) else given[0])
    if path == STDIN:
        return "stdin"
    path = path.partition("?")[0] if "://" in path else path
    return path.rstrip("/").rpartition("/")[2].partition(".")[0]


def names_files(text: str) -> bool:
    """Return whether a name is that of files: "-", a path with "/", a glob, a URL, one there is."""
    there = os.path.exists(text) and not os.path.isdir(text)  # a topic may be called as a folder
    return text == STDIN or "/" in text or glob.has_magic(text) or there


def place_of(path: str) -> Place:
    """Return the place that a path, "-" or a URL names; raises as `places`."""
    if path == STDIN:
        return Place(path, None, _standard_input().open, _standard_input().read_on)
    if "://" in path:
        if not path.startswith(("file://", "local://")):
            size, opened = open_url(path)
            return Place(path, size, opened)
        path = local_path(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot read: {_reason(error)}") from error
    if stat.S_ISFIFO(found.st_mode) and path.startswith(_DESCRIPTORS):
        return Place(path, None, _pipe(path).open, _pipe(path).read_on)
    if not stat.S_ISREG(found.st_mode):
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{path}: is a directory; name its files, such as '{path}/*.csv'")
        raise UsageError(f"{path}: is no plain file; expected a file, or - for standard input")
    if found.st_size == 0:
        raise UsageError(f"{path}: the file is empty; expected at least one row")
    return Place(path, found.st_size, functools.partial(_open, path))


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _expand(path: str) -> list[str]:
    if path == STDIN or not glob.has_magic(path.partition("?")[0] if "://" in path else path):
        return [path]
    if "://" in path and not path.startswith(("file://", "local://")):
        found = glob_url(path)
    else:
        path = local_path(path) if "://" in path else path
        if os.path.lexists(path):  # a name with brackets
            return [path]
        found = sorted(each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
    if not found:
        raise UsageError(f"{path}: no file matches; check the pattern")
    return found


@functools.cache
def _standard_input() -> _Copied:
    return _Copied("standard input", lambda: cast(BinaryIO, sys.stdin.buffer))


@functools.lru_cache(16)
def _pipe(path: str) -> _Copied:
    return _Copied(path, lambda: _open(path))


class _Copied:
    """Let a stream that comes once be read again: what came is copied to a temporary file."""

    def __init__(self, name: str, opened: Callable[[], BinaryIO]) -> None:
        self._name, self._opened = name, opened
        self._stream: Any = None
        self._lock = threading.Lock()
        self._length, self._ended = 0, False
        self._copy: Any = None
        self._begin, self._reads_on = 0, False  # the copy begins there
        self._readers: weakref.WeakSet[_Again] = weakref.WeakSet()

    def open(self) -> BinaryIO:
        reader = _Again(self)
        self._readers.add(reader)
        return cast(BinaryIO, reader)

    def read_on(self) -> None:
        """Keep no more than what is open now has still to read; see `Place`."""
        self._reads_on = True

    def close(self) -> None:
        """Forget what came."""
        if self._copy is not None:
            self._copy.close()

    def read_at(self, at: int, most: int) -> bytes:
        """Return what stands there; less at the end.

        Raises:
            UsageError: it was read, and is gone.
        """
        with self._lock:
            self._fetch(at + most)
            if at < self._begin:
                raise UsageError(f"{self._name}: was read, and comes once; give a file instead")
            data = os.pread(
                self._copy.fileno(), min(most, max(self._length - at, 0)), at - self._begin
            )
            if self._reads_on:
                self._drop()
            return data

    def length(self) -> int:
        """Read to the end, and return how many bytes came."""
        with self._lock:
            self._fetch(None)
            return self._length

    def _drop(self) -> None:
        """Let go of what every reader has behind it, once that is much, and more than the rest."""
        least = min((each.tell() for each in self._readers if not each.closed), default=0)
        rest = self._length - least
        if least - self._begin > max(_KEPT_BYTES, rest):
            data = os.pread(self._copy.fileno(), rest, least - self._begin)
            os.ftruncate(self._copy.fileno(), 0)
            self._copy.seek(0)
            self._copy.write(data)
            self._begin = least

    def _fetch(self, length: int | None) -> None:
        try:
            if self._copy is None:
                self._copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  for the process
                self._stream = self._opened()
            while not self._ended and (length is None or self._length < length):
                piece = getattr(self._stream, "read1", self._stream.read)(_CHUNK_BYTES)
                self._ended = not piece
                self._length += self._copy.write(piece)
        except OSError as error:
            raise UsageError(
                f"{self._name}: cannot be read and copied to {tempfile.gettempdir()}: "
                f"{_reason(error)}; TMPDIR names another place"
            ) from error


class _Again(io.RawIOBase):
    def __init__(self, source: _Copied) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._at)[whence] if whence < io.SEEK_END else self._source.length()
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at
