"""HDFS by its HTTP interface, WebHDFS: webhdfs://namenode:9870/path.

A file is written beside its place under a name of its own and renamed, which the NameNode does at
once, so that it appears whole or not at all; and a rename onto a file that is there is refused, so
that of several writers one creates it. fsspec's own upload appends block by block in place.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage.failures import is_temporary, parts
from headrace.stream.storage.remote import UrlStore

TIMEOUT_S = (10.0, 60.0)  # to connect, and to wait for the next bytes
BUSY = (429, 500, 502, 503, 504)


class HdfsStore(UrlStore):
    """Keep files in HDFS."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.place = f"webhdfs://{urlsplit(self._fs.url).netloc}{self._root}"

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in super().names(prefix) if not is_temporary(name)]

    def sweep(self, prefix: str = "") -> None:
        for name in super().names(prefix):
            if is_temporary(name):
                self.delete(name)

    def _open(self, url: str, **fresh: bool) -> tuple[Any, str]:
        fs, root = super()._open(url, **fresh)
        session = fs.session
        session.request = partial(_request, partial(type(session).request, session))
        return fs, root

    def _read(self, fs: Any, name: str, size: int) -> bytes:
        opened = self._ask(fs, "OPEN", "get", name)
        location = opened.headers.get("Location")
        if location:
            opened = fs.session.get(_near(fs, location))
            opened.raise_for_status()
        return bytes(opened.content)

    def _put(self, fs: Any, name: str, data: bytes, what: str, *, create: bool) -> None:
        """Write a file beside its place, and rename it.

        Raises:
            FileExistsError: it is there, and `create` is asked.
        """
        *directories, base = parts(name)
        temporary = "/".join([*directories, f".{base}.{secrets.token_hex(6)}.tmp"])
        options = {} if create else {"renameoptions": "OVERWRITE"}
        try:
            begun = self._ask(fs, "CREATE", "put", temporary, overwrite="true")
            written = fs.session.put(
                _near(fs, begun.headers["Location"]),
                data=data,
                headers={"content-type": "application/octet-stream"},
            )
            written.raise_for_status()
            failpoint(f"{what} written")
            destination = self._path(name)
            moved = self._ask(fs, "RENAME", "put", temporary, destination=destination, **options)
            # With options the answer is empty: then all that failed was raised.
            if moved.content and not moved.json()["boolean"]:
                raise FileExistsError(errno.EEXIST, "it is there", self._url(name))
            failpoint(f"{what} renamed")
        except Exception:
            with suppress(Exception):  # the next `sweep` removes it
                fs.rm_file(self._path(temporary))
            raise

    def _ask(self, fs: Any, operation: str, method: str, name: str, **parameters: str) -> Any:
        """Call the NameNode; a redirection to a DataNode is left to the caller."""
        return fs._call(
            operation, method=method, path=self._path(name), redirect=False, **parameters
        )


def _near(fs: Any, location: str) -> str:
    """Return where a DataNode is reached from here, as the user's `data_proxy` says."""
    return str(fs._apply_proxy(location))


def _request(send: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """Send a request that ends in time, and raise what a server says that has no time for it."""
    import requests

    answer = send(*what, **{"timeout": TIMEOUT_S} | how)
    if answer.status_code in BUSY:
        try:
            said = str(answer.json()["RemoteException"]["message"])
        except (ValueError, KeyError, TypeError):
            said = answer.reason
        raise requests.HTTPError(said, response=answer)
    return answer
