"""A directory of this user's own."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.process.failpoint import failpoint
from headrace.stream.process.paths import hold_lock
from headrace.stream.storage.failures import (
    READ_BYTES,
    Data,
    check_size,
    is_temporary,
    one_line,
    parts,
)

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hold us up
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStore:
    """Keep files in a directory of this user's own."""

    def __init__(self, place: str) -> None:
        self.place = os.path.abspath(place)
        self._parent, self._root = os.path.split(self.place)
        if not self._root:
            raise UsageError(f"{place} cannot hold files of ours: give a directory below it")
        with (
            suppress(FileNotFoundError),  # who writes or locks makes it: to read changes nothing
            one_line("use", self.place, FileNotFoundError),
            self._directory([]),
        ):
            pass

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._files(prefix) if not is_temporary(name)]

    def size(self, name: str) -> int:
        with self._open(name) as descriptor:
            return os.fstat(descriptor).st_size

    def read(self, name: str, most_bytes: int = READ_BYTES) -> bytes:
        with self._open(name) as descriptor:
            size = os.fstat(descriptor).st_size
            check_size(self._path(name), size, most_bytes)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(size)

    def write(self, name: str, data: Data, *, what: str = "file") -> None:
        with one_line("write", self._path(name)):
            self._put(name, data, what, os.rename)

    def create(self, name: str, data: bytes, *, what: str = "file") -> None:
        with one_line("write", self._path(name), FileExistsError):
            self._put(name, data, what, os.link)  # a link never replaces

    def delete(self, name: str) -> None:
        *directories, base = parts(name)
        with (
            one_line("delete", self._path(name)),
            suppress(FileNotFoundError),
            self._directory(directories) as directory,
        ):
            os.unlink(base, dir_fd=directory)

    def sweep(self, prefix: str = "") -> None:
        for name in self._files(prefix):
            if is_temporary(name):
                self.delete(name)

    @contextmanager
    def lock(self, holder: str) -> Iterator[None]:
        with ExitStack() as held:
            with one_line("lock", self.place), self._directory([], make=True):
                try:
                    held.enter_context(hold_lock(Path(self.place, "lock"), wait_s=0.0))
                except TimeoutError:
                    raise RecoveryError(
                        f"{self.place} is in use by another {holder}: stop that one, or give "
                        "another directory"
                    ) from None
            yield

    def _put(self, name: str, data: Data, what: str, publish: Any) -> None:
        *directories, base = parts(name)
        temporary = f".{base}.{secrets.token_hex(6)}.tmp"
        with self._directory(directories, make=True) as directory:
            try:
                _write_file(temporary, data, directory, what)
                publish(temporary, base, src_dir_fd=directory, dst_dir_fd=directory)
                failpoint(f"{what} renamed")
                os.fsync(directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        *directories, base = parts(name)
        with (
            one_line("read", self._path(name), FileNotFoundError),
            self._directory(directories) as directory,
        ):
            descriptor = os.open(base, _READ, dir_fd=directory)
            try:
                _check_trust(self._path(name), os.fstat(descriptor), stat.S_ISREG)
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _directory(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        """Open the directory that `parts` lead to, every one on the way checked."""
        if make:
            try:
                os.makedirs(self._parent, exist_ok=True)
            except FileExistsError:
                raise UsageError(
                    f"{self._parent} is no directory, or a symbolic link that leads nowhere"
                ) from None
        path, opened = self._parent, os.open(self._parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for part in [self._root, *parts]:
                path = os.path.join(path, part)
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=opened)
                        os.fsync(opened)
                inner = _open_directory(part, path, opened)
                os.close(opened)
                opened = inner
                _check_trust(path, os.fstat(opened), stat.S_ISDIR)
            yield opened
        finally:
            os.close(opened)

    def _files(self, prefix: str) -> list[str]:
        top = prefix.rpartition("/")[0]
        found: list[str] = []
        with (
            one_line("list", self.place),
            suppress(FileNotFoundError),
            self._directory(parts(top) if top else []) as directory,
        ):
            for path, _, files, _ in os.fwalk(".", dir_fd=directory):
                found += (os.path.normpath(os.path.join(top, path, file)) for file in files)
        return sorted(name for name in found if name.startswith(prefix))

    def _path(self, name: str) -> str:
        return os.path.join(self.place, *parts(name))


def _write_file(base: str, data: Data, directory: int, what: str) -> None:
    descriptor = os.open(base, _WRITE, 0o600, dir_fd=directory)
    try:
        for left in [memoryview(data)] if isinstance(data, bytes) else data:
            while left:
                left = left[os.write(descriptor, left) :]
        failpoint(f"{what} written")
        os.fsync(descriptor)
        failpoint(f"{what} synced")
    finally:
        os.close(descriptor)


def _open_directory(part: str, path: str, parent: int) -> int:
    try:
        return os.open(part, _DIR, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RecoveryError(
                f"{path} is a symbolic link or no directory at all: give the directory itself"
            ) from None
        raise


def _check_trust(path: str, found: os.stat_result, is_kind: Any) -> None:
    if not is_kind(found.st_mode):
        raise RecoveryError(f"{path} is not a plain file or directory: remove it")
    if found.st_uid != os.geteuid():
        raise RecoveryError(
            f"{path} belongs to user {found.st_uid}, not to you ({os.geteuid()}), and cannot be "
            "trusted: give one of your own"
        )
    if found.st_mode & 0o022:
        raise RecoveryError(
            f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}): if you "
            "trust its content, run chmod go-w on it; else give another place"
        )
