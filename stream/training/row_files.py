"""Rows that wait longer than the learner has slots: in files that have no name, and end with us."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from headrace.model import waiting
from headrace.model.batch import Batch
from headrace.model.frame import Frame, moved_from
from headrace.model.spec import Spec
from headrace.stream.errors import RecoveryError
from headrace.stream.training.joined import Moves
from headrace.stream.training.learned import Part

SEGMENT = 1 << 18  # events of one file
SPARSE = 8  # where so small a part of a file's rows is needed, these are gathered in another
GATHERED = -1  # in place of a segment: rows of any

PackedRows = NDArray[np.void]
Numbers = NDArray[np.int64]
Rebased = tuple[int, Frame, Frame]
"""The last row that had left before a change of frame, and the frames before and after."""


class RowFiles:
    """Keep rows by the numbers of their events; any thread may read what was written.

    Args:
        spec: what a row is.
        directory: where there is room, if it is there; None: that of temporary files.
    """

    def __init__(self, spec: Spec, directory: str | None = None) -> None:
        self._spec, self._directory = spec, directory
        self._row = row_type(spec)
        self._files: dict[int, _File] = {}
        self._underway: deque[Part] = deque()
        self._last, self._rebased = -1, list[Rebased]()
        self._lock = RLock()
        self._fork, self._failed = False, ""
        self.begun = False
        """Whether a file was begun since `compact`."""

    def exchange(self, moves: Moves, batch: Batch) -> list[int]:
        """Bring the rows that labels of a part need; return the numbers of those that leave.

        Raises:
            RecoveryError: a row cannot be had; as its label was taken, nothing can be learned then.
        """
        if self._failed:
            raise RecoveryError(f"{self._failed}; go on from what was saved before")
        if moves.loads:
            lines, numbers = zip(*moves.loads, strict=True)
            try:
                batch.loaded[[*lines]] = self._load(np.array(numbers))
            except RecoveryError as error:
                self._failed = str(error)
                raise
        left = [number for _, number in moves.leaving]
        batch.unloaded[: len(left), 0] = np.array(left, int) % self._spec.waiting
        self._last = left[-1] if left else self._last
        return left

    def rebase(self, before: Frame, after: Frame) -> None:
        """Convert the rows that have left, as those in the state are: each rounding counts."""
        if not self._spec.classes:
            self._rebased = [*self._rebased, (self._last, before, after)]

    def add(self, part: Part) -> None:
        """Write the rows that leave with a part, once they are known; does not wait."""
        if part.left and not self._fork:
            self._underway.append(part)

    def flush(self, part: Part | None = None) -> None:
        """Wait for the rows that left with this part and with those before it; None: with all."""
        last = math.inf
        if part:
            last = part.left[-1] if part.left else -1
        while self._underway and self._underway[0].left[-1] <= last:
            self._write_part(self._underway[0])
            self._underway.popleft()  # now: what could not be written is tried again

    def _load(self, numbers: Numbers) -> NDArray[np.uint32]:
        """Return rows as the learner takes them, u32[n, W]."""
        if self._underway and self._underway[0].left[0] <= numbers.max():
            self.flush()
        rows = self._read(self._files, numbers)
        words: NDArray[np.uint32] = self._converted(rows, self._rebased)["words"]
        return words

    def compact(self, needed: Numbers) -> None:
        """Let go of all rows but those that are needed."""
        self.flush()
        self.begun = False
        with self._lock:
            at, _ = _places(self._files, needed)
            kept, newest = dict[int, _File](), max(self._files, default=0)
            for segment, file in self._files.items():
                enough = int((at == segment).sum()) * SPARSE >= max(file.rows, 1)
                if segment != GATHERED and (segment == newest or enough):
                    kept[segment] = file
            others = ~np.isin(at, [*kept])
            if others.any():
                kept[GATHERED] = self._gathered(needed[others], needed[others & (at != GATHERED)])
            self._files = kept
        oldest = needed[0] if len(needed) else self._last + 1
        self._rebased = [each for each in self._rebased if each[0] >= oldest]

    def _gathered(self, rows: Numbers, new: Numbers) -> _Gathered:
        """Return a file with rows, of which those that are new are not gathered yet."""
        known = self._files.get(GATHERED)
        if not isinstance(known, _Gathered) or known.rows + len(new) > 2 * len(rows):
            known, new = _Gathered(self._directory), rows
        if len(new):
            known.add(self._read(self._files, new))
        return known

    def fork(self) -> RowFiles:
        """Return the same rows to read; what leaves there is not kept."""
        self.flush()
        found = copy(self)
        found._underway, found._fork, found.begun = deque(), True, False
        return found

    def copied(self) -> Callable[[Numbers], NDArray[np.uint8]]:
        """Return what gives the bytes of rows that were needed now, later and on any thread."""
        files, underway, rebased = dict(self._files), [*self._underway], self._rebased

        def rows(numbers: Numbers) -> NDArray[np.uint8]:
            """Return rows, one after the other."""
            for part in underway:
                self._write_part(part, files)
            found = self._converted(self._read(files, numbers), rebased)
            return found.view(np.uint8).reshape(-1)

        return rows

    def restore(self, rows: NDArray[np.uint8], needed: Numbers) -> None:
        """Take rows over, in the frame that there is.

        Raises:
            RecoveryError: they are not those that are needed.
        """
        size, whole = self._row.itemsize, rows.size % self._row.itemsize == 0
        found = np.ascontiguousarray(rows[: rows.size // size * size]).view(self._row)
        if not whole or not np.array_equal(found["number"], needed):
            raise RecoveryError(
                f"the state holds {len(found):,} rows beside its slots, and its labels wait for "
                f"{len(needed):,}: it was changed"
            )
        self._files, self._underway = {}, deque()
        self._last, self._rebased = int(needed[-1]) if len(needed) else -1, []
        if len(found):
            self._files[GATHERED] = gathered = _Gathered(self._directory)
            gathered.add(found)

    def _write_part(self, part: Part, files: dict[int, _File] | None = None) -> None:
        rows = np.zeros(len(part.left), self._row)
        rows["number"] = part.left
        rows["words"] = np.asarray(part.outcome.unloaded)[: len(part.left)]
        self._write(rows, self._files if files is None else files)

    def _write(self, rows: PackedRows, files: dict[int, _File]) -> None:
        with self._lock:
            for segment, first, part in _runs(*np.divmod(rows["number"], SEGMENT)):
                if segment not in files:
                    files[segment] = self._files.get(segment) or _File(self._directory)
                    self.begun |= files is self._files
                files[segment].write(rows[part], first)

    def _read(self, files: dict[int, _File], numbers: Numbers) -> PackedRows:
        rows = np.empty(len(numbers), self._row)
        for file, first, part in _runs(*_places(files, numbers)):
            files[file].read(rows[part], first)
        return rows

    def _converted(self, rows: PackedRows, rebased: Sequence[Rebased]) -> PackedRows:
        """Take rows through the changes of frame since they left."""
        for last, before, after in rebased:
            early = rows["number"] <= last
            for columns in waiting.labels_of(self._spec) if early.any() else ():
                known = rows["words"][early, columns].view(np.float32)
                rows["words"][early, columns] = moved_from(before, known, after).view(np.uint32)
        return rows


class _File:
    """Hold the rows of one segment; it takes room for those alone that were written."""

    def __init__(self, directory: str | None) -> None:
        known = directory if directory and Path(directory).is_dir() else None
        self._directory = known or "the temporary directory"
        with self._told("kept"):
            self._directory = known or tempfile.gettempdir()
            with tempfile.TemporaryFile(dir=known) as file:
                self._descriptor = os.dup(file.fileno())
        finalize(self, os.close, self._descriptor)
        self.rows = 0

    def write(self, rows: PackedRows, first: int) -> None:
        left, at = memoryview(rows.tobytes()), first * rows.itemsize
        with self._told("kept"):
            while left:
                done = os.pwrite(self._descriptor, left, at)
                left, at = left[done:], at + done
        self.rows += len(rows)

    def read(self, rows: PackedRows, first: int) -> None:
        """Fill `rows` with those from the first one on."""
        left, at = rows.view(np.uint8).data, first * rows.itemsize
        with self._told("read"):
            while left:  # a call reads 2 GB at most
                done = os.preadv(self._descriptor, [left], at)
                if not done:
                    raise OSError(errno.EIO, "it ends before them")
                left, at = left[done:], at + done

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecoveryError(
                f"rows that wait for their label cannot be {what} in a file of "
                f"{self._directory}: {error.strerror}"
            ) from error


class _Gathered(_File):
    """Hold rows of any segments, one behind the other."""

    def __init__(self, directory: str | None) -> None:
        super().__init__(directory)
        self._index = np.zeros(0, np.int64), np.zeros(0, np.int32)

    def add(self, rows: PackedRows) -> None:
        """Write rows that are not there yet."""
        (numbers, places), first = self._index, self.rows
        self.write(rows, first)
        numbers = np.append(numbers, rows["number"])
        places = np.append(places, np.arange(first, self.rows, dtype=np.int32))
        order = np.argsort(numbers, kind="stable")
        self._index = numbers[order], places[order]  # at once: others may be reading

    def find(self, numbers: Numbers) -> NDArray[np.int32]:
        """Return the place of each row, -1 of those that are not there."""
        known, places = self._index
        at = np.searchsorted(known, numbers).clip(max=len(known) - 1)
        return np.where(known[at] == numbers, places[at], -1)


def row_type(spec: Spec) -> Any:
    """Return what a row is in a file: its event's number, and its words."""
    return np.dtype([("number", "<i8"), ("words", "<u4", (waiting.words(spec),))])


def _places(files: Mapping[int, _File], numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Return in which of the files each row is, and its place there."""
    segment, place = np.divmod(numbers, SEGMENT)
    if isinstance(gathered := files.get(GATHERED), _Gathered):
        found = gathered.find(numbers)
        segment, place = np.where(found < 0, segment, GATHERED), np.where(found < 0, place, found)
    return segment, place


def _runs(files: Numbers, places: Numbers) -> Iterator[tuple[int, int, slice]]:
    """Yield runs of places, one after the other, within a file: it, the first, and which."""
    if not len(files):
        return
    cut = (np.diff(files) != 0) | (np.diff(places) != 1)
    starts = [0, *(np.flatnonzero(cut) + 1).tolist(), len(files)]
    for start, stop in pairwise(starts):
        yield int(files[start]), int(places[start]), slice(start, stop)
