"""Whatever fsspec has a URL and a driver for."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

from headrace.stream.errors import StoreError, UsageError
from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage.failures import READ_BYTES, check_size, parts, why
from headrace.stream.storage.failures import one_line as failing

one_line = partial(failing, kind=StoreError)
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "azure"),
    "webhdfs": "hdfs",
}  # by the scheme of a URL


class UrlStore:
    """Keep files behind a URL that fsspec has a driver for."""

    def __init__(self, url: str) -> None:
        self._fs, root = _filesystem(url)
        self._root = root.rstrip("/")
        self.place = str(self._fs.unstrip_protocol(self._root))

    def names(self, prefix: str = "") -> list[str]:
        top = prefix.rpartition("/")[0]
        found: list[str] = []
        with one_line("list", self.place), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            place = self._path(top) if top else self._root
            # A driver may take a server that is not there for an empty place, but when asked twice.
            found = self._fs.find(place) or self._fs.ls(place, detail=False)[:0]
        names = (str(path).removeprefix(self._root).lstrip("/") for path in found)
        return sorted(
            name for name in names if name and name.startswith(prefix) and not name.endswith("/")
        )

    def size(self, name: str) -> int:
        with one_line("read", self._url(name), FileNotFoundError):
            self._fs.invalidate_cache()
            return int(self._fs.info(self._path(name))["size"])

    def read(self, name: str, most_bytes: int = READ_BYTES) -> bytes:
        size = self.size(name)
        check_size(self._url(name), size, most_bytes)
        if size == 0:  # a range of nothing is an error in HTTP
            return b""
        with one_line("read", self._url(name), FileNotFoundError):
            return bytes(self._fs.cat_file(self._path(name), start=0, end=size))

    def write(self, name: str, data: bytes | memoryview, *, what: str = "file") -> None:
        failpoint(f"{what} written")
        with one_line("write", self._url(name)):
            self._fs.pipe_file(self._path(name), bytes(data))
        failpoint(f"{what} renamed")

    def create(self, name: str, data: bytes, *, what: str = "file") -> None:
        path = self._path(name)
        failpoint(f"{what} written")
        with one_line("write", self._url(name), FileExistsError):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except Exception as error:
                self._fs.invalidate_cache()
                if self._fs.exists(path):  # S3's driver makes no difference between its refusals
                    raise FileExistsError(errno.EEXIST, "it is there", self._url(name)) from error
                if getattr(error, "errno", None) != errno.ENOSYS:
                    raise
                self._fs.pipe_file(path, data)
        failpoint(f"{what} renamed")

    def delete(self, name: str) -> None:
        with one_line("delete", self._url(name)), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def sweep(self, prefix: str = "") -> None:
        """Do nothing: there are no temporary files; a half-written one is replaced by name."""

    def lock(self, holder: str) -> AbstractContextManager[None]:
        return nullcontext()

    def _path(self, name: str) -> str:
        return "/".join([self._root, *parts(name)])

    def _url(self, name: str) -> str:
        return "/".join([self.place.rstrip("/"), *parts(name)])


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0]
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        wanted = f"`pip install headrace[{extra}]`" if extra else f"its driver: {error}"
        raise UsageError(f"{scheme}:// needs {wanted}") from None
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// cannot be used: {why(error)}; give a directory or a URL such as "
            "s3://bucket/path"
        ) from None
    return filesystem, str(root)
