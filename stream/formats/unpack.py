"""Files as bytes of UTF-8: unpacked, whatever compressed them, and of UTF-16 if that is marked."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from headrace.stream.errors import UsageError
from headrace.stream.formats.places import Place
from headrace.stream.task.schema import MOST_EVENT_BYTES

SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
MOST_ROW_BYTES = MOST_EVENT_BYTES
_CHUNK_BYTES = 1 << 18
_LONG_BYTES, _PART_BYTES = 1 << 20, 256 << 10
_MAGIC = re.compile(
    rb"(?P<gzip>\x1f\x8b)|(?P<zstd>\x28\xb5\x2f\xfd)|(?P<bzip2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))"
    rb"|(?P<xz>\xfd7zXZ\0)",
    re.DOTALL,
)


def packing(place: Place) -> str | None:
    """Return how a file is compressed, by what it begins with; None if it is not.

    Raises:
        UsageError: its name says that it is, and it is not.
    """
    with contextlib.closing(place.open()) as file:
        head = _exactly(file, 16)
    found = _MAGIC.match(head)
    named = next((kind for end, kind in SUFFIXES.items() if place.path.lower().endswith(end)), None)
    if named and not found:
        raise UsageError(f"{place}: broken {named} data: it begins otherwise; fetch it again")
    return found.lastgroup if found else None


def open_unpacked(place: Place) -> BinaryIO:
    """Open a file and unpack what is compressed, as it is read.

    Raises:
        UsageError: here or from `read`: it cannot be read, or is broken or cut off.
    """
    kind = packing(place)
    return _unpacked(place, kind, place.open())


def _unpacked(place: Place, kind: str | None, file: BinaryIO) -> BinaryIO:
    opened: Any = file
    if kind == "gzip":
        opened = gzip.GzipFile(fileobj=file)
    elif kind == "bzip2":
        opened = bz2.BZ2File(file)
    elif kind == "xz":
        opened = lzma.LZMAFile(file)  # noqa: SIM115  closed with what is returned
    elif kind == "zstd":
        import pyarrow as pa

        opened = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    return cast(BinaryIO, io.BufferedReader(_Checked(place, kind, opened, file), _CHUNK_BYTES))


def chunks(place: Place, file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a text file as UTF-8 without a byte order mark.

    Only UTF-16 is checked; what should be UTF-8 is passed on as it is.

    Raises:
        UsageError: it is not UTF-16 as it says, or no text: packed once more, or a PDF.
    """
    chunk = file.read(_CHUNK_BYTES)
    if again := _MAGIC.match(chunk):
        raise UsageError(f"{place}: packed twice, with {again.lastgroup} within; unpack it once")
    if chunk.startswith(b"%PDF-"):
        raise UsageError(f"{place}: a PDF, which is no table; export its data as CSV")
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder, at = codecs.getincrementaldecoder("utf-16")(), 0
        while chunk:
            try:
                yield decoder.decode(chunk).encode()
                at += len(chunk)
                chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    decoder.decode(b"", final=True)
            except UnicodeError as error:
                where = at + getattr(error, "start", 0)
                raise UsageError(f"{place}: not UTF-16 at byte {where:,}; convert it") from error
        return
    chunk = chunk.removeprefix(codecs.BOM_UTF8)
    while chunk:
        yield chunk
        chunk = file.read(_CHUNK_BYTES)


def line_blocks(place: Place, file: BinaryIO) -> Iterator[bytes]:
    """Yield the same as blocks of whole lines; they end with a line feed, but for the last.

    Raises:
        UsageError: a line is longer than any event may be.
    """
    rest: list[bytes] = []
    length = lines = 0
    end: bytes | None = None
    for chunk in chunks(place, file):
        if end is None:  # once upon a time, lines of a Macintosh ended with a carriage return
            end = b"\r" if b"\r" in chunk[:-1] and b"\n" not in chunk else b"\n"
        if end == b"\r":
            chunk = chunk.replace(b"\r", b"\n")
        cut = chunk.rfind(b"\n") + 1
        if cut:
            block = b"".join([*rest, chunk[:cut]])
            lines += block.count(b"\n")
            yield block
            rest, length = [], 0
        rest.append(chunk[cut:])
        length += len(chunk) - cut
        if length > MOST_ROW_BYTES:
            raise UsageError(
                f"{place}: line {lines + 1:,} is longer than {MOST_ROW_BYTES:,} bytes; "
                "is it a file of rows?"
            )
    if length:
        yield b"".join(rest)


def parts_later(place: Place) -> Iterator[bytes]:
    """Yield whole lines of the middle, then of the end, of a long text; none if it is packed."""
    size = place.size or 0
    if size < _LONG_BYTES or packing(place):
        return
    with contextlib.closing(place.open()) as file:
        if not file.seekable() or _exactly(file, 2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return
        for start in (size // 2, size - _PART_BYTES):
            file.seek(start)
            part = _exactly(file, _PART_BYTES)
            yield part[part.find(b"\n") + 1 : part.rfind(b"\n") + 1]


def head_of(place: Place, most: int) -> tuple[bytes, int]:
    """Return how a file begins when unpacked, and about how many of its bytes that took."""
    with contextlib.closing(open_unpacked(place)) as text:
        head = _exactly(text, most)
        return head, bytes_taken(text)


def bytes_taken(file: BinaryIO) -> int:
    """Return about how many bytes of the packed file were read of what `open_unpacked` returned."""
    checked = cast(_Checked, cast(io.BufferedReader, file).raw)
    return checked.taken() or file.tell()


class _Checked(io.RawIOBase):
    """Say in one line what is wrong with a file, and where."""

    def __init__(self, place: Place, kind: str | None, file: Any, packed: BinaryIO) -> None:
        self._place, self._kind, self._file, self._packed = place, kind, file, packed
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell()) if self.seekable() else self._bytes

    def taken(self) -> int | None:
        """Return how far the packed file was read; None if nothing is packed."""
        return self._packed.tell() if self._kind else None

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            if self._kind is None or getattr(error, "errno", None):
                raise UsageError(
                    f"{self._place}: cannot read: {getattr(error, 'strerror', None) or error}"
                ) from error
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{self._place}: broken {self._kind} data after {self._bytes:,} unpacked "
                f"bytes ({reason}); fetch or compress it again"
            ) from error
        buffer[: len(data)] = data
        self._bytes += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._packed.close()
        super().close()


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    return data
