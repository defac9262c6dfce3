"""HDFS by its HTTP interface, WebHDFS: webhdfs://namenode:9870/path.

A file is written beside its place under a name of its own and renamed, which the NameNode does at
once, so that it appears whole or not at all; and a rename onto a file that is there is refused, so
that of several writers one creates it. fsspec's own upload appends block by block in place.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage.failures import READ_BYTES, check_size, is_temporary, parts
from headrace.stream.storage.remote import UrlStore, one_line

TIMEOUT_S = (10.0, 60.0)  # to connect, and to wait for the next bytes
RETRIES = 4  # of reading requests that were cut off, or that the server had no time for
BUSY = (429, 500, 502, 503, 504)


class HdfsStore(UrlStore):
    """Keep files in HDFS."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.place = f"webhdfs://{urlsplit(self._fs.url).netloc}{self._root}"
        _be_patient(self._fs.session)

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in super().names(prefix) if not is_temporary(name)]

    def read(self, name: str, most_bytes: int = READ_BYTES) -> bytes:
        size = self.size(name)
        check_size(self._url(name), size, most_bytes)
        with one_line("read", self._url(name), FileNotFoundError):
            opened = self._ask("OPEN", "get", name)
            location = opened.headers.get("Location")
            if location:
                opened = self._fs.session.get(self._near(location))
                opened.raise_for_status()
            data = bytes(opened.content)
            if len(data) != size:
                raise OSError(f"{len(data)} bytes came of {size}")
            return data

    def write(self, name: str, data: bytes | memoryview, *, what: str = "file") -> None:
        self._put(name, data, what, renameoptions="OVERWRITE")

    def create(self, name: str, data: bytes, *, what: str = "file") -> None:
        self._put(name, data, what)

    def sweep(self, prefix: str = "") -> None:
        for name in super().names(prefix):
            if is_temporary(name):
                self.delete(name)

    def _put(self, name: str, data: bytes | memoryview, what: str, **options: str) -> None:
        """Write a file beside its place, and rename it.

        Raises:
            FileExistsError: it is there, and no option says to replace it.
        """
        *directories, base = parts(name)
        temporary = "/".join([*directories, f".{base}.{secrets.token_hex(6)}.tmp"])
        with one_line("write", self._url(name), FileExistsError):
            try:
                begun = self._ask("CREATE", "put", temporary, overwrite="true")
                written = self._fs.session.put(
                    self._near(begun.headers["Location"]),
                    data=bytes(data),
                    headers={"content-type": "application/octet-stream"},
                )
                written.raise_for_status()
                failpoint(f"{what} written")
                destination = self._path(name)
                moved = self._ask("RENAME", "put", temporary, destination=destination, **options)
                # With options the answer is empty: then all that failed was raised.
                if moved.content and not moved.json()["boolean"]:
                    raise FileExistsError(errno.EEXIST, "it is there", self._url(name))
                failpoint(f"{what} renamed")
            except Exception:
                with suppress(Exception):  # the next `sweep` removes it
                    self._fs.rm_file(self._path(temporary))
                raise

    def _ask(self, operation: str, method: str, name: str, **parameters: str) -> Any:
        """Call the NameNode; a redirection to a DataNode is left to the caller."""
        return self._fs._call(
            operation, method=method, path=self._path(name), redirect=False, **parameters
        )

    def _near(self, location: str) -> str:
        """Return where a DataNode is reached from here, as the user's `data_proxy` says."""
        return str(self._fs._apply_proxy(location))


def _be_patient(session: Any) -> None:
    """Let requests end in time, and repeat those that only read."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(
        RETRIES,
        backoff_factor=0.2,
        status_forcelist=BUSY,
        allowed_methods={"GET"},
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    session.request = partial(type(session).request, session, timeout=TIMEOUT_S)
