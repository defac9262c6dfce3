"""Rows in files: what is kept of them, and that nothing is left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import waiting
from headrace.model.batch import Outcome, empty_batch
from headrace.model.frame import Frame
from headrace.model.spec import Spec
from headrace.stream.errors import RecoveryError
from headrace.stream.training import row_files
from headrace.stream.training.joined import Moves
from headrace.stream.training.learned import Part
from headrace.stream.training.row_files import RowFiles, row_type

SPEC = Spec(numeric=2, classes=2, waiting=8, loads=True)
NUMBERS = Spec(numeric=2, waiting=8, loads=True)


def part(spec: Spec, numbers: list[int]) -> Part:
    """Let rows leave whose every word is their number."""
    words = np.repeat(np.array(numbers, np.uint32)[:, None], waiting.words(spec), 1)
    outcome = Outcome._make([None] * (len(Outcome._fields) - 1) + [words])
    return Part(1, outcome, Frame(spec), numbers)


def loaded(files: RowFiles, spec: Spec, numbers: list[int]) -> Any:
    batch = empty_batch(spec, 64)
    files.exchange(Moves(loads=[*enumerate(numbers)]), batch)
    return batch.loaded[: len(numbers)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "SEGMENT", 16)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_what_is_needed_is_there_whatever_is_let_go_of(data: st.DataObject) -> None:
    files, known = RowFiles(SPEC), set[int]()
    for turn in range(data.draw(st.integers(1, 8))):
        first = turn * 20
        numbers = data.draw(st.lists(st.integers(first, first + 19), unique=True))
        files.add(part(SPEC, sorted(numbers)))
        known |= {*numbers}
        if data.draw(st.booleans()):
            known = {each for each in known if data.draw(st.booleans())}
            files.compact(np.array(sorted(known), np.int64))
    needed = np.array(sorted(known), np.int64)
    for each in known:
        assert (loaded(files, SPEC, [each]) == each).all()
    kept = files.copied()(needed)
    other = RowFiles(SPEC)
    other.restore(kept, needed)
    assert other.copied()(needed).tobytes() == kept.tobytes()
    assert (loaded(other, SPEC, needed.tolist()[:64]) == needed[:64, None]).all()


def test_files_have_no_names_and_take_room_for_what_is_needed(tmp_path: Path) -> None:
    before = descriptors()
    files = RowFiles(SPEC, str(tmp_path))
    for first in range(0, 160, 16):
        files.add(part(SPEC, [*range(first, first + 16)]))
    files.flush()
    assert files.begun and descriptors() == before + 10
    assert not [*tmp_path.iterdir()]
    files.compact(np.array([3, 40, 41], np.int64))  # and the newest file stays
    assert descriptors() == before + 3 and not files.begun
    assert loaded(files, SPEC, [3, 40, 41, 159])[:, 0].tolist() == [3, 40, 41, 159]
    later = files.copied()
    del files
    assert later(np.array([41], np.int64)).size
    del later
    assert descriptors() == before


def test_few_rows_of_many_files_are_gathered_in_one(tmp_path: Path) -> None:
    before, files, row = descriptors(), RowFiles(SPEC, str(tmp_path)), row_type(SPEC).itemsize

    def size() -> int:
        opened = (Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
        ours = (each for each in opened if str(tmp_path) in os.path.realpath(each))
        return sum(each.stat().st_size for each in ours)

    for first in range(0, 1600, 16):
        files.add(part(SPEC, [*range(first, first + 16)]))
        files.flush()
        files.compact(np.arange(5, first + 16, 16))
        assert descriptors() <= before + 2
    needed = np.arange(5, 1600, 16)
    assert (loaded(files, SPEC, needed[:64].tolist()) == needed[:64, None]).all()
    assert size() == (99 + 16) * row
    files.compact(needed[40:])
    assert size() == (99 + 16) * row
    files.compact(needed[60:])
    assert size() == (39 + 16) * row
    kept = files.copied()(needed[60:])
    again = RowFiles(SPEC)
    again.restore(kept, needed[60:])
    again.add(part(SPEC, [1598]))  # of the segment of another that was there before
    for known in (files, again):
        assert loaded(known, SPEC, [1598, 1589, 965])[:, 0].tolist() == [1598, 1589, 965]
    assert descriptors() == before + 4


def test_a_copy_holds_what_is_gathered_before_it_is_read() -> None:
    files, needed = RowFiles(SPEC), np.array([1], np.int64)
    files.add(part(SPEC, [*range(12)]))
    copied = files.copied()
    for first in (12, 16):
        files.add(part(SPEC, [*range(first, first + 4)]))
    files.compact(np.array([1, 13], np.int64))
    again = RowFiles(SPEC)
    again.restore(copied(needed), needed)
    assert (loaded(again, SPEC, [1]) == 1).all()
    assert loaded(files, SPEC, [13, 1, 17])[:, 0].tolist() == [13, 1, 17]


def test_rows_that_are_under_way_are_waited_for_in_their_order() -> None:
    files = RowFiles(SPEC)
    parts = [part(SPEC, numbers) for numbers in ([1, 2], [5], [9, 30])]
    for each in parts:
        files.add(each)
    kept = files.copied()
    files.flush(parts[1])
    assert loaded(files, SPEC, [5, 1])[:, 0].tolist() == [5, 1]
    assert loaded(files, SPEC, [30])[:, 0].tolist() == [30]  # which it waits for by itself
    rows = kept(np.array([1, 9, 30], np.int64))
    again = RowFiles(SPEC)
    again.restore(rows, np.array([1, 9, 30], np.int64))
    assert loaded(again, SPEC, [9])[:, 0].tolist() == [9]


def test_what_leaves_where_it_is_only_foreseen_is_not_kept() -> None:
    files = RowFiles(SPEC)
    files.add(part(SPEC, [1]))
    seen = files.fork()
    foreseen = part(SPEC, [2])
    foreseen.outcome.unloaded[:] = 77
    seen.add(foreseen)
    seen.flush()
    assert loaded(seen, SPEC, [1])[0, 0] == 1
    files.add(part(SPEC, [2]))
    assert loaded(files, SPEC, [2])[0, 0] == 2


def test_numbers_go_through_each_change_of_frame_that_the_state_goes_through() -> None:
    first, other, last = (Frame(NUMBERS) for _ in range(3))
    other.origin, other.unit = np.array([0.0, 0.0, 1e9]), np.array([1.0, 1.0, 1.0])
    last.origin, last.unit = np.array([0.0, 0.0, -6.0]), np.array([1.0, 1.0, 0.5])
    columns = waiting.labels_of(NUMBERS)
    files = RowFiles(NUMBERS)
    for number in (3, 4):
        leaves = part(NUMBERS, [number])
        for each in columns:
            leaves.outcome.unloaded[:, each] = np.float32(2.5).view(np.uint32)
        files.exchange(Moves(leaving=[(0, number)]), empty_batch(NUMBERS, 64))
        files.add(leaves)
        if number == 3:
            files.rebase(first, other)
    kept = files.copied()
    files.rebase(other, last)
    needed = np.array([3, 4], np.int64)
    again = RowFiles(NUMBERS)
    again.restore(kept(needed), needed)
    again.rebase(other, last)
    files.compact(needed)
    for known in (files, again):
        found = loaded(known, NUMBERS, [4, 3, 4])
        rest = np.setdiff1d(np.arange(found.shape[1]), np.r_[columns])
        assert (found[:, rest] == [[4], [3], [4]]).all() and len(rest)
        values = np.concatenate([found[:, at] for at in columns], 1).view(np.float32)
        # 2.5 - 1e9 is -1e9 as float32; then it is counted from -6, in halves
        assert (values == np.array([[2e9 + 17], [12.0], [2e9 + 17]], np.float32)).all()


def test_rows_that_are_not_those_that_labels_wait_for_are_refused() -> None:
    files = RowFiles(SPEC)
    files.add(part(SPEC, [1, 2]))
    needed = np.array([1, 2], np.int64)
    rows = files.copied()(needed)
    for wrong, numbers in ((rows, needed[:1]), (rows[:-1], needed), (rows, needed + 1)):
        with pytest.raises(RecoveryError, match="it was changed"):
            RowFiles(SPEC).restore(wrong, numbers)


def test_a_full_disk_is_told_of_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = RowFiles(SPEC, str(tmp_path))
    files.add(part(SPEC, [1]))
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(RecoveryError, match=f"in a file of {tmp_path}: No space left on"):
            files.flush()
    files.add(part(SPEC, [2]))
    assert loaded(files, SPEC, [2, 1])[:, 0].tolist() == [2, 1]


def test_nothing_is_learned_after_a_row_that_could_not_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its label was taken: what came next would be learned without it."""

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    files = RowFiles(SPEC)
    files.add(part(SPEC, [1, 2]))
    with monkeypatch.context() as patched:
        patched.setattr("os.preadv", broken)
        with pytest.raises(RecoveryError, match=r"cannot be read in a file of .*: Input/output"):
            loaded(files, SPEC, [1])
    for numbers in ([], [2]):
        with pytest.raises(RecoveryError, match="Input/output error; go on from what was saved"):
            loaded(files, SPEC, numbers)


def test_rows_that_a_call_reads_in_part_are_read_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, whole = RowFiles(SPEC), os.preadv
    files.add(part(SPEC, [1, 2, 3]))
    files.flush()
    monkeypatch.setattr("os.preadv", lambda file, to, at: whole(file, [to[0][:50]], at))
    assert (loaded(files, SPEC, [1, 2, 3]).T == [1, 2, 3]).all()


def test_a_machine_without_a_temporary_directory_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/not/there"])
    files = RowFiles(SPEC)
    files.add(part(SPEC, [1]))
    with pytest.raises(RecoveryError, match="No usable temporary directory found in"):
        files.flush()
