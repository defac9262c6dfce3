"""Where whole files are kept: a directory of one's own, or anything that fsspec has a URL for.

A file appears whole or not at all, and what `write` and `create` return from lasts. A local
directory is trusted with a learner's state, so each directory and file below it must belong to
this user, not be writable by others, and not be a symbolic link; all of it is checked on open
descriptors, one path component at a time, so that nothing can be swapped in between.

A URL takes its settings from where the driver takes them: for S3 the usual AWS variables and
files (`AWS_ENDPOINT_URL` too), for any of them fsspec's own configuration. Where an upload of
more than 100 MB is cut off, S3 keeps its parts, unseen, until a lifecycle rule of the bucket
removes them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import urlsplit

from headrace.stream.errors import UsageError
from headrace.stream.storage.failures import READ_BYTES, Data
from headrace.stream.storage.hdfs import HdfsStore
from headrace.stream.storage.local import LocalStore
from headrace.stream.storage.remote import UrlStore


class Store(Protocol):
    """Keep files by name; names are relative, their parts joined by "/".

    Every method raises RecoveryError, one line, when the place fails or must not be trusted;
    behind a URL StoreError, after what may pass was tried again for a while.
    """

    place: str
    """The place as a message names it, without passwords."""

    def names(self, prefix: str = "") -> list[str]:
        """List the names that begin with `prefix`, sorted; [] where there are none."""

    def size(self, name: str) -> int:
        """Tell a file's size in bytes. Raises FileNotFoundError."""

    def read(self, name: str, most_bytes: int = READ_BYTES) -> bytes:
        """Read a file that is not larger than `most_bytes`. Raises FileNotFoundError."""

    def write(self, name: str, data: Data, *, what: str = "file") -> None:
        """Make a file or replace it, all or nothing; `what` names the failpoints passed."""

    def create(self, name: str, data: bytes, *, what: str = "file") -> None:
        """Make a file, all or nothing, that is not there yet.

        One of several writers wins if the store has conditional writes, as directories, S3 and
        its like do; elsewhere they may replace each other's. Behind a URL, where an answer can be
        lost, a file that holds just these bytes counts as made: who must know its own from
        another's puts a random number into it.

        Raises:
            FileExistsError: it is there.
        """

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    def sweep(self, prefix: str = "") -> None:
        """Remove what killed writers left half-written below `prefix`; nobody may be writing."""

    def lock(self, holder: str) -> AbstractContextManager[None]:
        """Keep other processes that ask for this lock out; URLs have none and let all in.

        `holder` is what errors call who may hold it, such as "learner".
        """


def open_store(place: str) -> Store:
    """Open a directory (a path or file://) or an fsspec URL.

    A directory that is not there holds no files; it is made by what writes or locks.

    Raises:
        UsageError: no such kind of URL, or its driver is not installed.
        RecoveryError: a directory that others could have written to.
    """
    scheme, separator, _ = place.partition("://")
    if not separator:
        return LocalStore(place)
    if scheme in ("file", "local"):
        return LocalStore(local_path(place))
    if scheme == "hdfs":
        raise UsageError(
            f"{place}: expected the HTTP address of the NameNode: webhdfs://host:9870/path"
        )
    return HdfsStore(place) if scheme == "webhdfs" else UrlStore(place)


def local_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError(f"{url} names no directory: write file:///path/to/it")
    return parts.path
