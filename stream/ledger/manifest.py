"""Manifests: which state a checkpoint holds, sealed; nothing in them is read that is not proven."""

from __future__ import annotations

import hashlib
import hmac
import time
from copy import copy
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.ledger import Record
from headrace.stream.ledger.position import Counts, Position
from headrace.stream.rows.late import Truth
from headrace.stream.task import Task

_FORMAT = 1
MANIFEST_BYTES = 1 << 20
_SETTINGS_BYTES = 1 << 19
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Say which state a checkpoint holds and where in the ledger and the topics it stands.

    A field that is added has a default, which is left out: so older manifests stay what they are.
    """

    run: str  # the ledger's run id, hex
    seq: _Count  # the ledger's record that the state stands at
    chain: str  # that record's chain, hex sha256
    ledger_offset: _Count  # where that record lies
    positions: dict[_Count, _Count]  # next offset of the raw topic by partition
    reading: dict[_Count, _Count]  # the same of the features topic; {} when there is none
    counts: dict[str, int]  # of `stream.ledger.position.Counts`, and how many labels were learned
    task: str  # fingerprint of the task
    code: str  # fingerprint of the code
    state: str  # sha256 of the state
    time_ms: int
    tensors_bytes: _Count = 0  # filled in by `save`, as is the next
    tensors_sha256: str = ""
    topics: dict[str, str] = {}  # ids of the task's topics by name
    settings: dict[str, Any] = {}  # the whole task, unless it is too large to stand here
    labels: dict[_Count, _Count] = {}  # next offset of the labels topic by partition
    truth: Truth | None = None  # None where there is none
    fields: dict[str, Any] = {}  # of events that the task does not read, see `formats.new_fields`

    @property
    def position(self) -> Position:
        """Return where the learner stood."""
        counts = {name: count for name, count in self.counts.items() if name != "learned"}
        truth = copy(self.truth) if self.truth else Truth()
        reading, counted = dict(self.reading), Counts(**counts)
        return Position(
            dict(self.positions), reading, counted, self.fields, dict(self.labels), truth
        )

    def as_words(self) -> dict[str, str]:
        """Return for people where and when the state was."""
        time = datetime.fromtimestamp(self.time_ms / 1000, UTC)
        offsets = ", ".join(f"{part}:{next_}" for part, next_ in sorted(self.positions.items()))
        return {
            "run": self.run,
            "record": f"#{self.seq}",
            "offsets of the topic, partition:next": offsets,
            "written": f"{time:%Y-%m-%dT%H:%M:%SZ}",
        }

    @property
    def learned(self) -> int:
        """Count the labels that were learned."""
        return self.counts["learned"]

    @property
    def is_start(self) -> bool:
        """Return whether it stands before the run's first record, at none."""
        return not self.chain


def manifest_at(
    record: Record,
    offset: int,
    position: Position,
    *,
    task: str,
    state: str,
    learned: int,
    topics: dict[str, str],
    settings: dict[str, Any] | None = None,
) -> Manifest:
    """Return the manifest of a state at a record of the ledger, taken now.

    Args:
        offset: of the record.
        task: fingerprint of the task.
        state: sha256 of the state.
        learned: labels that it learned.
        topics: ids of the task's topics by name.
        settings: of the task, as `fitting` gives them.
    """
    return Manifest(
        run=record.run,
        seq=record.seq,
        chain=record.chain,
        ledger_offset=offset,
        positions=position.offsets,
        labels=position.labels,
        truth=position.truth if position.labels else None,
        reading=position.reading,
        counts=asdict(position.counts) | {"learned": learned},
        task=task,
        code=fingerprint.of_code(),
        state=state,
        time_ms=time.time_ns() // 1_000_000,
        topics=topics,
        settings=settings or {},
        fields=position.fields,
    )


def start_manifest(
    task: Task, run: str, begins: Position, state: str, learned: int, code: str | None
) -> Manifest:
    """Return the manifest of a saved learner that a run begins with, before its first record.

    Args:
        begins: where the run begins.
        state: sha256 of the state.
        learned: labels that it learned.
        code: fingerprint of what learned it; None: of this.
    """
    return Manifest(
        run=run,
        seq=0,
        chain="",
        ledger_offset=0,
        positions=begins.offsets,
        labels=begins.labels,
        reading={},
        counts=asdict(Counts()) | {"learned": learned},
        task=fingerprint.of_task(task),
        code=code or fingerprint.of_code(),
        state=state,
        time_ms=time.time_ns() // 1_000_000,
        settings=fitting(fingerprint.written(task)),
    )


def fitting(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a task if a manifest has room for them."""
    return settings if len(msgspec.json.encode(settings)) <= _SETTINGS_BYTES else {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    manifest: Manifest
    hmac: str = ""  # of the manifest, under the key
    sha256: str = ""  # of all the above


class _Known(msgspec.Struct):
    """Read of a manifest what tells whether this version can read it."""

    format: int = 0
    manifest: dict[str, Any] = {}


def seal(manifest: Manifest, key: bytes | None) -> bytes:
    file = _File(_FORMAT, manifest)
    if key is not None:
        file.hmac = hmac.new(key, msgspec.json.encode(file), "sha256").hexdigest()
    file.sha256 = hashlib.sha256(msgspec.json.encode(file)).hexdigest()
    return msgspec.json.encode(file)


def unseal(text: bytes, key: bytes | None) -> Manifest:
    """Return the manifest if `text` is exactly what `key` seals it to; ValueError if not."""
    if len(text) > MANIFEST_BYTES:
        raise ValueError(f"its manifest has {len(text)} bytes, more than {MANIFEST_BYTES}")
    try:
        _check_version(msgspec.json.decode(text, type=_Known))
        file = msgspec.json.decode(text, type=_File)
        file.manifest.position  # noqa: B018  its counts have to be those of this version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ValueError(f"it is no manifest of format {_FORMAT}: {error}") from error
    if not hmac.compare_digest(text, seal(file.manifest, key)):
        reason = "its HMAC is not of the key given" if key else "a key sealed it that is not given"
        raise ValueError(f"it was changed, or {reason}")
    return file.manifest


def _check_version(known: _Known) -> None:
    """Tell a manifest of another version from one that was changed."""
    if known.format != _FORMAT:
        raise ValueError(
            f"it is of format {known.format}, and this version of headrace reads {_FORMAT}"
        )
    if more := sorted(known.manifest.keys() - set(Manifest.__struct_fields__)):
        raise ValueError(f"a newer headrace wrote it: {more[0][:40]!r} is not known here")
