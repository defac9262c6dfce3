"""Whatever fsspec has a URL and a driver for."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

from headrace.stream.errors import HeadraceError, StoreError, UsageError
from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage.failures import (
    READ_BYTES,
    Data,
    check_size,
    failure,
    mistaken,
    parts,
    patiently,
    why,
)
from headrace.stream.storage.failures import one_line as failing

Result = TypeVar("Result")
one_line = partial(failing, kind=StoreError)
_SILENT = logging.NullHandler()
FIRST_S = 4.0  # that a file of a user's is asked for: nothing is lost yet, and the URL may be wrong
PIECE_BYTES = 4 << 20  # of a file that is read from its beginning to its end
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "azure"),
    "webhdfs": "hdfs",
}  # by the scheme of a URL


class UrlStore:
    """Keep files behind a URL that fsspec has a driver for.

    What may pass is tried again for a while, beyond what the driver does itself; credentials that
    are refused, as expired ones are, are looked for again, once.
    """

    def __init__(self, url: str) -> None:
        self._given = url
        self._fs, root = self._open(url)
        self._root = root.rstrip("/")
        self.place = str(self._fs.unstrip_protocol(self._root))

    def names(self, prefix: str = "") -> list[str]:
        top = prefix.rpartition("/")[0]
        found: list[str] = []
        with one_line("list", self.place), suppress(FileNotFoundError):
            place = self._path(top) if top else self._root
            found = self._patiently(lambda fs: self._find(fs, place))
        names = (str(path).removeprefix(self._root).lstrip("/") for path in found)
        return sorted(
            name for name in names if name and name.startswith(prefix) and not name.endswith("/")
        )

    def size(self, name: str) -> int:
        with one_line("read", self._url(name), FileNotFoundError):
            return self._patiently(lambda fs: self._size(fs, name))

    def read(self, name: str, most_bytes: int = READ_BYTES) -> bytes:
        def whole(fs: Any) -> bytes:
            size = self._size(fs, name)
            check_size(self._url(name), size, most_bytes)
            data = self._read(fs, name, size) if size else b""  # no range of nothing in HTTP
            if len(data) != size:
                raise ConnectionError(f"{len(data)} bytes came of {size}")
            return data

        with one_line("read", self._url(name), FileNotFoundError):
            return self._patiently(whole)

    def write(self, name: str, data: Data, *, what: str = "file") -> None:
        whole = data if isinstance(data, bytes) else b"".join(data)
        with one_line("write", self._url(name)):
            self._patiently(lambda fs: self._put(fs, name, whole, what, create=False))

    def create(self, name: str, data: bytes, *, what: str = "file") -> None:
        with one_line("write", self._url(name), FileExistsError):
            try:
                self._patiently(lambda fs: self._put(fs, name, data, what, create=True))
            except Exception as error:
                if self._holds(name, data, error):  # done, and the answer was cut off
                    return
                if getattr(error, "errno", None) != errno.ENOSYS:
                    raise
                self._patiently(lambda fs: self._put(fs, name, data, what, create=False))

    def delete(self, name: str) -> None:
        with one_line("delete", self._url(name)), suppress(FileNotFoundError):
            self._patiently(lambda fs: fs.rm_file(self._path(name)))

    def sweep(self, prefix: str = "") -> None:
        """Do nothing: there are no temporary files; a half-written one is replaced by name."""

    def lock(self, holder: str) -> AbstractContextManager[None]:
        return nullcontext()

    def _holds(self, name: str, data: bytes, error: Exception) -> bool:
        """Return whether a file is there, and is `data`, after its creation ended with an error.

        Raises:
            FileExistsError: there is another.
        """
        try:
            if self.size(name) == len(data) and self.read(name, len(data)) == data:
                return True
        except FileNotFoundError:
            return False
        except StoreError:
            raise error from None
        raise FileExistsError(errno.EEXIST, "it is there", self._url(name)) from error

    def _open(self, url: str, **fresh: bool) -> tuple[Any, str]:
        """Return a driver and the path that the URL has there."""
        return _filesystem(url, **fresh)

    def _find(self, fs: Any, place: str) -> list[str]:
        """List all files below a path. Raises FileNotFoundError."""
        fs.invalidate_cache()
        if not fs.async_impl:
            return list(_below(fs, place.rstrip("/")))
        # A driver may take a server that is not there for an empty place, but when asked twice.
        return list(fs.find(place) or fs.ls(place, detail=False)[:0])

    def _size(self, fs: Any, name: str) -> int:
        fs.invalidate_cache()
        return int(fs.info(self._path(name))["size"])

    def _read(self, fs: Any, name: str, size: int) -> bytes:
        return bytes(fs.cat_file(self._path(name), start=0, end=size))

    def _put(self, fs: Any, name: str, data: bytes, what: str, *, create: bool) -> None:
        """Write a file. Raises whatever the driver does if it is there and `create` is asked."""
        failpoint(f"{what} written")
        fs.pipe_file(self._path(name), data, **({"mode": "create"} if create else {}))
        failpoint(f"{what} renamed")

    def _patiently(self, call: Callable[[Any], Result]) -> Result:
        """Return what `call` makes of the driver; see the class."""
        try:
            return patiently(lambda: call(self._fs))
        except Exception as error:
            if isinstance(error, HeadraceError) or not failure(error).refused:
                raise
        self._fs, _ = self._open(self._given, skip_instance_cache=True)
        return patiently(lambda: call(self._fs))

    def _path(self, name: str) -> str:
        return "/".join([self._root, *parts(name)])

    def _url(self, name: str) -> str:
        return "/".join([self.place.rstrip("/"), *parts(name)])


def _filesystem(url: str, **fresh: bool) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0]
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **fresh)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        wanted = f"`pip install headrace[{extra}]`" if extra else f"its driver: {error}"
        raise UsageError(f"{scheme}:// needs {wanted}") from None
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// cannot be used: {why(error)}; give a directory or a URL such as "
            "s3://bucket/path"
        ) from None
    # Some log what they raise: where nobody set up logging, that would be printed.
    logging.getLogger(type(filesystem).__module__.partition(".")[0]).addHandler(_SILENT)
    return filesystem, str(root)


def _below(fs: Any, directory: str) -> Iterator[str]:
    """List all files below a directory; fsspec's own `find` leaves out what it cannot list."""
    for each in fs.ls(directory, detail=True):
        path = each["name"].rstrip("/")
        if each["type"] != "directory":
            yield path
        elif path != directory:
            with suppress(FileNotFoundError):  # it was removed since
                yield from _below(fs, path)


def open_url(url: str) -> tuple[int | None, Callable[[], BinaryIO]]:
    """Return the size of a file in bytes, None where it is not told, and a function to open it.

    Raises:
        UsageError: there is no driver for such a URL, no such file, or it is empty.
        StoreError: it cannot be reached.
    """
    fs, path = _filesystem(url)
    told = str(fs.unstrip_protocol(path)).partition("?")[0]
    with one_line("read", told):
        try:
            found = patiently(lambda: fs.info(path), FIRST_S)
        except FileNotFoundError as error:
            if cause := mistaken(error):
                raise cause from None
            raise UsageError(f"{told}: no such file; check the URL") from None
    if found.get("type") == "directory":
        raise UsageError(f"{told}: is a directory; name its files, such as '{told}/*.csv'")
    size = found.get("size")
    if size == 0:
        raise UsageError(f"{told}: the file is empty; expected at least one row")
    return size, lambda: cast(BinaryIO, _UrlFile(fs, path, told))


def glob_url(url: str) -> list[str]:
    """Return the URLs of the files that a pattern matches, sorted. Raises as `open_url`."""
    fs, path = _filesystem(url)
    with one_line("list", str(fs.unstrip_protocol(path))), suppress(FileNotFoundError):
        found = patiently(lambda: fs.glob(path, detail=True), FIRST_S)
        return sorted(
            fs.unstrip_protocol(name) for name, of in found.items() if of["type"] == "file"
        )
    return []


class _UrlFile(io.RawIOBase):
    """Read a file behind a URL, in large pieces; what may pass is tried again for a while."""

    def __init__(self, fs: Any, path: str, told: str) -> None:
        self._told, self._at = told, 0
        with one_line("read", told):
            self._file: Any = patiently(lambda: fs.open(path, "rb", block_size=PIECE_BYTES))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        def read() -> bytes:
            if (
                self.seekable() and self._file.tell() != self._at
            ):  # a driver may share what it opens
                self._file.seek(self._at)
            return bytes(self._file.read(len(buffer)))

        with one_line("read", self._told):
            data = patiently(read) if self.seekable() else read()
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with one_line("read", self._told):
            start = self._at if whence == io.SEEK_CUR else self._file.seek(0, whence)
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
