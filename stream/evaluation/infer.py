"""Guess a task from the first events of a file or a topic; the guess is printed, never silent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

import tomli_w

from headrace.stream.errors import UsageError
from headrace.stream.formats import files
from headrace.stream.formats.codec import MAX_DEPTH, pointer, time_ms
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task, validate
from headrace.stream.task.features import LONGEST_NAME
from headrace.stream.task.schema import MOST_EVENT_BYTES

SAMPLED = 1000
FIRST_EVENT_S = 10.0
CLASSES_FROM = 200_000
MOST_CLASSES = 50
ID_NAMES = {"id", "event_id", "uuid", "_id"}
TIME_NAMES = {"time", "timestamp", "ts", "datetime", "date", "created_at", "event_time"}
Kind = Literal["classify", "regress"]


def infer_file(
    path: files.Given,
    target: str,
    *,
    kind: Kind | None = None,
    drop: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
) -> Task:
    """Guess a task from a file, or several: see `formats.files`.

    Column types come from rows of the beginning and, of what is long, of the middle and the end;
    the classes from these and the target's column as far as CLASSES_FROM rows.

    Raises:
        UsageError: no such file or column, or a target that cannot be predicted.
    """
    raws = list(files.spread(path, SAMPLED))
    rows = list(files.objects(raws))
    if not rows:
        raise UsageError(
            f"{files.called(path)}: no JSON object in the first {SAMPLED} rows; one a line expected"
        )
    labels = None if kind == "regress" else _labels(chain(raws, files.read(path)), target)
    name = task_name(files.stem(path))
    return infer(rows, name, target, kind=kind, drop=drop, time=time, entity=entity, labels=labels)


def infer_topic(
    kafka: KafkaConnection,
    topic: str,
    target: str,
    *,
    kind: Kind | None = None,
    drop: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
) -> Task:
    """Guess a task from the first events of a topic.

    Raises:
        UsageError: the topic has no events, no such field, or a target that cannot be predicted.
        BrokerError: no broker, or no such topic.
    """
    source = kafka.source(topic)
    try:
        records = source.poll(SAMPLED, FIRST_EVENT_S)
    finally:
        source.close()
    raws = list(filter(None, records.values if records else ()))
    rows = list(files.objects(raws))
    if not rows:
        raise UsageError(f"{topic}: no JSON event within {FIRST_EVENT_S:g} s")
    name = task_name(topic.removeprefix("events."))
    task = infer(rows, name, target, kind=kind, drop=drop, time=time, entity=entity, topic=topic)
    return _as_seen(task, len(source.partitions), max(map(len, raws)))


def infer(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    target: str,
    *,
    kind: Kind | None = None,
    drop: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
    labels: Iterable[Any] | None = None,
    topic: str | None = None,
) -> Task:
    """Guess a task from decoded events; nested fields are named by JSON Pointers.

    Raises:
        UsageError: a named column is not there, or the target cannot be predicted.
    """
    columns = _columns(rows)
    for wanted in (target, *drop, *filter(None, (time, entity))):
        if wanted not in columns:
            raise UsageError(f"{wanted}: no such column; there are {', '.join(columns)}")
    for wanted in (target, *filter(None, (time, entity))):
        if any(isinstance(value, list) for value in columns[wanted]):
            raise UsageError(f"{wanted}: a list, expected a single value")
    known = [v for v in (columns[target] if labels is None else labels) if v is not None]
    kind = kind or ("classify" if _is_class(known) else "regress")
    identity = next((c for c in columns if _leaf(c) in ID_NAMES and c != target), None)
    time = time or next((c for c in columns if _is_time(c, columns[c]) and c != target), None)
    table: dict[str, Any] = {
        "name": name,
        "input": {"topic": topic or f"events.{name}"},
        "target": {"field": target, "kind": kind},
        "features": {},
    }
    table["input"] |= {
        key: value
        for key, value in (("id", identity), ("entity", entity), ("time", time))
        if value is not None
    }
    if kind == "classify":
        table["target"]["classes"] = _class_names(target, known)
    if time is not None:
        table["calendar"] = ["hour", "weekday", "year"]
    used = {target, identity, time, entity, *drop}
    for column, values in columns.items():
        form = {} if column in used else _feature(values)
        if form:
            feature = _feature_name(column, table["features"])
            place = {} if feature == column else {"field": column}
            table["features"][feature] = {**form, **place}
    if not table["features"]:
        raise UsageError(f"no column is left to predict {target} from")
    return validate(table, f"the inferred task {name}")


def _as_seen(task: Task, partitions: int, largest_bytes: int) -> Task:
    """Note what the topic has: its partitions, and events larger than the default takes."""
    changes: dict[str, Any] = {}
    if partitions != task.topics.partitions:
        changes["topics"] = task.topics.model_copy(update={"partitions": partitions})
    if largest_bytes > task.input.max_bytes:
        room = min(1 << (2 * largest_bytes).bit_length(), MOST_EVENT_BYTES)
        changes["input"] = task.input.model_copy(update={"max_bytes": room})
    return task.model_copy(update=changes)


def describe(task: Task) -> str:
    """Put the guess into lines for a person."""
    groups: dict[str, list[str]] = {}
    for name, feature in task.features.items():
        groups.setdefault(feature.kind, []).append(name)
    target = task.target
    what = f"one of {', '.join(target.classes)}" if target.classes else "a number"
    lines = [f"target    {target.field}: {what}"]
    lines += [f"{kind:<9} {', '.join(names)}" for kind, names in groups.items()]
    for role in ("id", "time", "entity"):
        field = getattr(task.input, role)
        if field and (role != "id" or "id" in task.input.model_fields_set):
            lines.append(f"{role:<9} {field}")
    return "\n".join(visible(line, keep="") for line in lines)


def to_toml(task: Task) -> str:
    """Write a task as TOML, one line for each feature, without what is default."""
    table = task.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    features = table.pop("features")
    lines = [
        f"{tomli_w.dumps({name: 0}).rpartition(' = ')[0]} = {{ {_inline(feature)} }}"
        for name, feature in features.items()
    ]
    return tomli_w.dumps(table) + "\n[features]\n" + "\n".join(lines) + "\n"


def _inline(table: Mapping[str, Any]) -> str:
    return ", ".join(tomli_w.dumps({key: value}).strip() for key, value in table.items())


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn events into columns, None where an event lacks the field."""
    flat = [dict(_leaves(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return {name: [row.get(name) for row in flat] for name in names}


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[str, Any]]:
    for key, inner in value.items():
        here = (*path, key)
        if isinstance(inner, dict):
            if len(here) < MAX_DEPTH:  # deeper events are refused
                yield from _leaves(inner, here)
        elif not isinstance(inner, list) or _is_set(inner):
            plain = len(here) == 1 and not key.startswith("/")
            escaped = (part.replace("~", "~0").replace("/", "~1") for part in here)
            yield key if plain else "/" + "/".join(escaped), inner


def _is_set(values: Sequence[Any]) -> bool:
    """Return whether a list may be one of categories: nothing nested, and no vector of numbers."""
    return not any(isinstance(v, dict | list | float) for v in values)


def _labels(events: Iterable[bytes], target: str) -> list[Any]:
    """Collect the distinct labels of a file, in the order of their first appearance."""
    path = pointer(target)
    seen: dict[str, Any] = {}
    for event in files.objects(islice(events, CLASSES_FROM)):
        value: Any = event
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list):
            seen.setdefault(scalar_text(value), value)
            if len(seen) > 10 * MOST_CLASSES:
                break
    return list(seen.values())


def _is_class(labels: Sequence[Any]) -> bool:
    """Take text for classes, and numbers when they are few whole ones."""
    if any(isinstance(label, str | bool) for label in labels):
        return True
    distinct = set(labels)
    return len(distinct) <= 20 and all(isinstance(v, int) or v.is_integer() for v in distinct)


def _class_names(target: str, labels: Sequence[Any]) -> list[str]:
    names = list(dict.fromkeys(map(scalar_text, labels)))
    if not 2 <= len(names) <= MOST_CLASSES:
        found = f"{names[0]!r} alone" if len(names) == 1 else f"{len(names)} different labels"
        raise UsageError(
            f"{target}: {found}, expected 2 to {MOST_CLASSES} classes; is it --kind regress?"
        )
    return sorted(names)


def _feature(values: Sequence[Any]) -> dict[str, Any]:
    """Return what a column is, nothing of one that only names its rows."""
    known = [v for v in values if v is not None]
    if any(isinstance(v, list) for v in known):
        return {"kind": "category", "several": True}
    if not any(isinstance(v, str | bool) for v in known):
        return {"kind": "number"}
    texts = [str(v) for v in known]
    if sum(len(text.split()) for text in texts) / len(texts) >= 3:
        return {"kind": "text"}
    names = len(texts) > 50 and len(set(texts)) > 0.9 * len(texts)
    return {} if names else {"kind": "category"}


def _is_time(column: str, values: Sequence[Any]) -> bool:
    known = [v for v in values if v is not None]
    if _leaf(column) not in TIME_NAMES or not known:
        return False
    if all(isinstance(v, str) for v in known):
        return all(time_ms(v) == time_ms(v) for v in known)
    return all(isinstance(v, int | float) and v > 1e8 for v in known)


def _leaf(column: str) -> str:
    return pointer(column)[-1].lower()


def task_name(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", text).strip("-_")[:100] or "task"


def _feature_name(column: str, taken: Mapping[str, Any]) -> str:
    plain = column if not column.startswith("/") else ".".join(pointer(column))
    for name in (plain, column):
        if name not in taken and len(name) <= LONGEST_NAME:
            return name
    return f"{plain[: LONGEST_NAME - 10]} {len(taken) + 1}"
