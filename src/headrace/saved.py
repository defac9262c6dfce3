"""A learner as bytes: a line of JSON that says what it is, and the arrays of its state.

Or what a service has left of one: a checkpoint.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.rows.encoder_files import digests
from headrace.stream.storage import open_store, tensors
from headrace.stream.task import Task, keras_file, validate
from headrace.stream.task.plugins import versions
from headrace.stream.training.snapshot import SavedState, Tensors, digest, shapes_of

FORMAT = 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """Hold the first line."""

    headrace: int  # FORMAT
    task: dict[str, Any]
    code: str  # fingerprint
    state: str  # sha256
    learned: _Count  # labels
    events: _Count
    number: str | None  # of `reading.Reader`
    packages: dict[str, str] = {}  # of others that the task needs, with their versions
    encoders: dict[str, str] = {}  # by feature, sha256 of a frozen encoder's files
    network: _Count = 0  # bytes of the file of a Keras model, which lie before the arrays


def pack(task: Task, state: Tensors, learned: int, events: int, number: str | None) -> bytes:
    """Put a learner into bytes."""
    told, code = fingerprint.written(task), fingerprint.of_code()
    network = b""
    if keras_file.is_keras(task.model.network):
        network = keras_file.content(task.spec.network)
    about = Saved(
        headrace=FORMAT,
        task=told,
        code=code,
        state=digest(state),
        learned=learned,
        events=events,
        number=number,
        packages=versions(task),
        encoders=digests(task),
        network=len(network),
    )
    return b"".join([msgspec.json.encode(about), b"\n", network, *tensors.pack(state)])


def unpack(
    data: bytes, origin: str, *, any_code: bool = False
) -> tuple[Task, dict[str, NDArray[np.generic]], Saved]:
    """Return what `pack` was given; `origin` names the bytes in errors.

    Args:
        any_code: whatever code saved it.

    Raises:
        UsageError: they are no saved learner.
        RecoveryError: they are broken, or were saved by other code than this.
    """
    first, _, packed = data.partition(b"\n")
    try:
        about = msgspec.json.decode(first, type=Saved)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}: no saved learner: {error}") from error
    task = validate(about.task, origin)
    other_code = about.code != fingerprint.of_code() and not any_code
    if about.headrace != FORMAT or other_code:
        raise RecoveryError(f"{origin}: saved by other code than this: learn it again")
    if about.packages != (packages := versions(task)):
        raise RecoveryError(f"{origin}: saved with {about.packages}, here is {packages}")
    now = digests(task)
    if others := [name for name in now if about.encoders.get(name) != now[name]]:
        encoder = task.frozen[others[0]].encoder
        raise RecoveryError(
            f"{origin}: features.{others[0]}.encoder = {encoder}: its files are others than those "
            "it was learned with: put them back, or learn it again"
        )
    network, packed = packed[: about.network], packed[about.network :]
    try:
        if network:
            keras_file.hold(network)
        state = tensors.unpack(packed, shapes_of(task))
    except ValueError as error:
        raise RecoveryError(f"{origin}: broken: {error}") from error
    if digest(state) != about.state:
        raise RecoveryError(f"{origin}: broken: its state is not the one that was saved")
    return task, state, about


def write(path: Path, data: bytes) -> None:
    """Write bytes to a file, all or nothing.

    Raises:
        UsageError: it cannot be written.
    """
    temporary = path.parent / f".{path.name}.tmp"
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise _unusable(path, "written", error) from error


def open_start(place: str, key: bytes | None, task: Task) -> SavedState:
    """Return the state that a service of a task is to begin with, or began with.

    It may be of other code than this: whoever begins a run with it has to look.

    Args:
        place: a file of `save`, or as of `open_checkpoint`.
        key: what sealed the checkpoints.

    Raises:
        UsageError: there is no saved learner, or it is of another task.
        RecoveryError: it is broken, or of another version's form.
    """
    data, numbered = read(place), False
    if data is None:
        other, state, manifest = open_checkpoint(place, key, any_code=True)
        found = SavedState(state, manifest.learned, manifest.code)
    else:
        other, state, about = unpack(data, place, any_code=True)
        found = SavedState(state, about.learned, about.code)
        numbered = bool(about.number)
    check_task(other, task, place)
    if numbered:  # the numbers that its rows got are no ids of the service's events
        no_ids = np.frombuffer(msgspec.msgpack.encode([]), np.uint8)
        found = replace(found, tensors={**state, "recent": no_ids})
    return found


def check_task(other: Task, task: Task, place: str) -> None:
    """Raise a UsageError if a learner, which lies at a place, is of another task."""
    if fingerprint.of_task(other) != fingerprint.of_task(task):
        settings = fingerprint.settings_of(other), fingerprint.settings_of(task)
        changed = "; ".join(fingerprint.differences(*settings)) or "the key of the hashes"
        raise UsageError(f"{place}: is a learner of another task than {task.name}: {changed}")


def read(place: str) -> bytes | None:
    """Return a file's bytes, or None for what may be a checkpoint: URL, directory, or by its name.

    Raises:
        UsageError: it cannot be read.
    """
    if "://" in place:
        return None
    path = Path(place)
    named = _FILE.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if named or isinstance(error, IsADirectoryError):
            return None
        raise _unusable(path, "read", error) from error
    return None if named and not data.startswith(b'{"headrace":') else data


def _unusable(path: Path, what: str, error: OSError | ValueError) -> UsageError:
    why = error.strerror if isinstance(error, OSError) else error  # which is of a NUL in it
    return UsageError(f"{path}: cannot be {what}: {why}")


_FILE = re.compile(r"([0-9]{12,18}|start)\.(json|safetensors)", re.ASCII)
_MANIFEST = re.compile(r"(?:(?:(.+)/)?([0-9a-f]{1,64})/)?([0-9]{12,18}|start)\.json", re.ASCII)


def open_checkpoint(
    place: str, key: bytes | None, *, any_code: bool = False
) -> tuple[Task, dict[str, NDArray[np.generic]], Manifest]:
    """Open the newest checkpoint of a service, of the run that wrote last.

    Args:
        place: the state directory (or URL) of one or of several tasks, that of a run within it,
            one checkpoint's file, or that of what a run began with (start.json).
        key: what sealed the checkpoints.
        any_code: whatever code learned it.

    Returns:
        the task, its state, and where and when that was.

    Raises:
        UsageError: there is no checkpoint, or those of several tasks.
        RecoveryError: it is broken, or was learned by other code than this, or another's key
            sealed it; or others can write there.
    """
    if "://" not in place:
        place = os.path.abspath(place)
    folder, _, file = place.rpartition("/")
    at = file.partition(".")[0] if _FILE.fullmatch(file) else ""
    place = folder or "/" if at else place
    found = [match for name in open_store(place).names() if (match := _MANIFEST.fullmatch(name))]
    if not found:
        raise UsageError(f"{place}: no checkpoint of a service lies there")
    if any(match[2] is None for match in found):  # of one run
        place, _, run = place.rstrip("/").rpartition("/")
        if not re.fullmatch("[0-9a-f]{1,64}", run):
            raise UsageError(f"{place}/{run}: no run of a service, by its name")
        folders = {("", run)}
    else:
        folders = {(match[1] or "", match[2]) for match in found}
    if len(tasks := sorted({task for task, _ in folders})) > 1:
        raise UsageError(f"{place}: holds checkpoints of {', '.join(tasks)}; name one: {place}/...")
    newest: tuple[int, str] = (-1, "")
    for task, run in folders:
        newest = max(newest, (_newest_ms(_of_run(place, task, run, key)), run))
    checkpoints, problems = _of_run(place, tasks[0], newest[1], key), list[str]()

    def accept(manifest: Manifest) -> bool:
        if problem := _unfit(manifest, any_code):
            problems.append(problem)
        return not problem and (at in ("", "start") or int(at) == manifest.seq)

    def shapes(manifest: Manifest) -> tensors.Shapes:
        return shapes_of(_task_of(manifest))

    if at == "start":
        usable = checkpoints.start(shapes, accept)
    else:
        usable = checkpoints.newest(shapes, accept=accept)
    if usable is None:
        why = [*problems, *checkpoints.problems, "no such checkpoint"][0]
        raise RecoveryError(f"{place}: cannot be opened: {why}")
    manifest, state = usable
    if digest(state) != manifest.state:
        raise RecoveryError(f"{place}: broken: its state is not the one that was saved")
    return _task_of(manifest), state, manifest


def _of_run(place: str, task: str, run: str, key: bytes | None) -> Checkpoints:
    return Checkpoints("/".join(filter(None, (place.rstrip("/"), task))), run=run, key=key)


def _newest_ms(checkpoints: Checkpoints) -> int:
    times = [0]

    def note(manifest: Manifest) -> bool:
        times.append(manifest.time_ms)
        return False

    checkpoints.newest({}, accept=note)
    return max(times)


def _task_of(manifest: Manifest) -> Task:
    return validate(manifest.settings, "the checkpoint's task")


def _unfit(manifest: Manifest, any_code: bool) -> str | None:
    """Say why a checkpoint cannot be opened, if so."""
    if manifest.code != fingerprint.of_code() and not any_code:
        return f"record {manifest.seq} was learned by other code than this"
    if not manifest.settings:
        return f"the checkpoint of record {manifest.seq} does not hold its task"
    try:
        same = fingerprint.of_task(_task_of(manifest)) == manifest.task
    except OSError as error:
        return f"the key of its hashes cannot be read: {error.filename}: {error.strerror}"
    if same:
        return None
    return "the key of its hashes or an encoder is another than it was, or its task was changed"
