"""Guess a task from the first events of a file or a topic; the guess is printed, never silent."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import msgspec

from headrace.stream.errors import UsageError, did_you_mean
from headrace.stream.evaluation import guess, labels, roles
from headrace.stream.evaluation.numbers_in_text import decimal_of
from headrace.stream.evaluation.options import Kind, Options
from headrace.stream.evaluation.sampling import (
    FIRST,
    Sample,
    columns_of,
    objects_elsewhere,
    of_events,
    of_file,
    with_labels,
)
from headrace.stream.evaluation.target import target_table
from headrace.stream.evaluation.task_toml import to_toml
from headrace.stream.formats import files
from headrace.stream.formats.misfits import no_object
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.terminal import visible
from headrace.stream.rows.refusals import Refusal, literals_told, refusals_of
from headrace.stream.task import Task, validate
from headrace.stream.task.features import LONGEST_NAME
from headrace.stream.task.field_path import pointer
from headrace.stream.task.schema import MOST_EVENT_BYTES

__all__ = ["Inferred", "Options", "describe", "guess_file", "guess_topic", "infer", "infer_file"]
__all__ += ["infer_topic", "task_name", "to_toml"]

FIRST_EVENT_S = 10.0
REFUSED = 0.02  # share of the rows, above which what refuses them is mended

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inferred:
    """Hold a guessed task, and all that is not plain about it.

    Attributes:
        left_out: columns that are no features though nobody said so, by the feature's name: the
            keys that it could have, and the reason.
        told: lines about what was read in a way that a person should know of.
        refusals: why the task refuses rows of the sample.
    """

    task: Task
    left_out: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    refusals: tuple[Refusal, ...] = ()

    def lines(self) -> list[str]:
        """Return a line for each column that was left out, and for all else that is told."""
        left = [f"left out: {name} ({why})" for name, (_, why) in self.left_out.items()]
        return [visible(line, keep="") for line in (*left, *self.told)]

    def to_toml(self) -> str:
        """Write the task as TOML, with what was left out as comments."""
        return to_toml(self.task, self.left_out)


def infer_file(
    path: files.Given,
    target: str,
    *,
    kind: Kind | None = None,
    drop: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
    decimal: Literal[".", ","] | None = None,
    dayfirst: bool | None = None,
    max_classes: int | None = None,
) -> Task:
    """Guess a task from a file, or several: see `formats.files`. What is not plain is logged.

    Column types come from the first rows and some of the later ones; the classes from the target's
    column as far as READ rows.

    Args:
        kind: what the target is; None: by its values.
        drop: columns to leave out.
        time: the column with the time of events.
        entity: the column with what they are about.
        decimal: the decimal mark, where texts do not show which it is.
        dayfirst: whether 03/04/2026 is the third of April, where dates do not show it.
        max_classes: most classes that the target may have; default: 50.

    Raises:
        UsageError: no such file or column, or a target that cannot be predicted.
    """
    options = Options(kind, drop, time, entity, decimal, dayfirst, max_classes)
    found = guess_file(path, target, options)
    for line in (*found.lines(), *(visible(str(each), keep="") for each in found.refusals)):
        log.warning("%s", line)
    return found.task


def guess_file(path: files.Given, target: str, options: Options) -> Inferred:
    """Guess a task as `infer_file` does, and say what is not plain about it."""
    known: list[Any] | None = None
    if options.kind == "regress":
        sample = of_file(path)
    else:
        most = labels.SEEN * (options.max_classes or labels.MOST_CLASSES)
        sample, known = with_labels(path, target, most)
    if not sample.rows:
        raise no_object(files.called(path), sample.raws)
    found = _guess(sample, task_name(files.stem(path)), target, options, known=known)
    return _useful(found, sample, files.called(path))


def infer_topic(kafka: KafkaConnection, topic: str, target: str, **options: Any) -> Task:
    """Guess a task from the first events of a topic; options as of `infer_file`.

    Raises:
        UsageError: the topic has no events, no such field, or a target that cannot be predicted.
        BrokerError: no broker, or no such topic.
    """
    return guess_topic(kafka, topic, target, Options(**options)).task


def guess_topic(kafka: KafkaConnection, topic: str, target: str, options: Options) -> Inferred:
    """Guess a task as `infer_topic` does, and say what is not plain about it."""
    source = kafka.source(topic)
    try:
        records = source.poll(FIRST, FIRST_EVENT_S)
    finally:
        source.close()
    sample = of_events(filter(None, records.values if records else ()))
    if not sample.raws:
        raise UsageError(f"{topic}: no event within {FIRST_EVENT_S:g} s")
    if not sample.rows:
        raise no_object(topic, sample.raws)
    name = task_name(topic.removeprefix("events."))
    found = _useful(_guess(sample, name, target, options, topic=topic), sample, topic)
    task = _as_seen(found.task, len(source.partitions), max(map(len, sample.raws)))
    return replace(found, task=task)


def infer(rows: Sequence[Mapping[str, Any]], name: str, target: str, **options: Any) -> Task:
    """Guess a task from decoded events; nested fields are named by JSON Pointers.

    Raises:
        UsageError: a named column is not there, or the target cannot be predicted.
    """
    raws = [msgspec.json.encode(row) for row in rows]
    return _guess(Sample(raws, [dict(row) for row in rows]), name, target, Options(**options)).task


def _guess(
    sample: Sample,
    name: str,
    target: str,
    options: Options,
    *,
    known: Sequence[Any] | None = None,
    topic: str | None = None,
) -> Inferred:
    """Guess a task.

    Args:
        known: distinct labels, where more are known than those of the sample.
    """
    whole = len(sample.rows) == len(sample.raws) and topic is None
    noun = "row" if topic is None else "event"
    labels.check_single(target, sample.rows, FIRST if whole else 0, noun)
    columns = columns_of(sample.rows)
    _check_named(columns, target, options)
    told: list[str] = []
    decimal = options.decimal or decimal_of([*columns.values()])
    if options.decimal:
        against = [c for c, v in columns.items() if decimal_of([v]) not in (None, decimal)]
        shown = "is not followed there: the numbers show another mark"
        told += [f"--decimal {decimal}: {', '.join(against)}: {shown}"] if against else []
    table: dict[str, Any] = {"name": name, "input": {"topic": topic or f"events.{name}"}}
    goal = target_table(target, columns[target], known, options.kind, decimal, options.max_classes)
    table["target"], more = goal
    told += [*more, *labels.alike(target, table["target"].get("classes", ()))]
    if sample.literals:
        table["input"]["non_finite"] = "missing"
        told += literals_told(sample.literals)
    keys, more = roles.find(columns, target, options.time, options.entity, options.dayfirst)
    told += more
    table["input"] |= keys
    if topic is None:
        told += roles.header_told(columns)
    if "time" in keys:
        told += roles.zones_told(keys["time"], columns[keys["time"]])
        table["calendar"] = ["hour", "weekday", "year"]
    used = {target, *(keys.get(role) for role in ("id", "time", "entity")), *options.drop}
    if keys.get("recent_ids") == 0:  # the id says what an event is about, not which it is
        used.discard("id")
    return _mended(sample, columns, table, used, decimal, told)


def _useful(found: Inferred, sample: Sample, place: str) -> Inferred:
    """Return the guess, unless its task refuses all that it was guessed from."""
    if sum(each.count for each in found.refusals) < len(sample.raws):
        return found
    rows = f"all {len(sample.raws):,} rows" if len(sample.raws) > 1 else "the only row"
    raise UsageError(f"{place}: {rows} would be refused: {found.refusals[0].reason}")


def _mended(
    sample: Sample,
    columns: Mapping[str, Sequence[Any]],
    table: dict[str, Any],
    used: set[str | None],
    decimal: str | None,
    told: list[str],
) -> Inferred:
    """Add the features, and leave out those that many rows would be refused for."""
    guessed = _guesses(columns, used, decimal)
    while True:
        features = _Features.of(guessed)
        if not features.taken:
            raise _nothing_left(table["target"]["field"], features.left)
        whole = {**table, "features": features.taken}
        task = validate(whole, f"the inferred task {table['name']}")
        refused = refusals_of(task, sample.raws)
        guilty = (each for each in refused if each.feature in features.taken)
        worst = next((each for each in guilty if each.count > REFUSED * len(sample.raws)), None)
        if worst is None:
            told = [*told, *(f"{c}: {g.told}" for c, g in guessed.items() if g.form and g.told)]
            return Inferred(task, features.left, told, refused)
        why = f"{worst.count:,} rows would be refused: {worst.detail}"
        guessed[features.columns[worst.feature]] = guess.Guess({}, why)


def _guesses(
    columns: Mapping[str, Sequence[Any]], used: set[str | None], decimal: str | None
) -> dict[str, guess.Guess]:
    """Return what each column could be as a feature, but those that are used for something else."""
    found = {c: guess.feature(v, decimal, c) for c, v in columns.items() if c not in used}
    for column, each in found.items():
        if each.form.get("kind") == "number" and pointer(column)[-1].lower() in roles.ID_NAMES:
            found[column] = guess.Guess({"kind": "category"})
    for column in objects_elsewhere(columns):
        if all(value is None for value in columns[column]):
            found.pop(column, None)  # an object that is null here and there
        elif column in found:
            found[column] = guess.Guess({}, "an object in other rows; its parts are read instead")
    return found


class _Features(NamedTuple):
    """Hold the features of a task by name.

    Attributes:
        taken: their keys in the task file.
        left: of those that are left out the keys that they could have, and why they are not.
        columns: what each of both kinds reads.
    """

    taken: dict[str, Any]
    left: dict[str, tuple[dict[str, Any], str]]
    columns: dict[str, str]

    @classmethod
    def of(cls, guessed: Mapping[str, guess.Guess]) -> _Features:
        """Name what was guessed of columns."""
        found = cls({}, {}, {})
        for column, each in guessed.items():
            name = _feature_name(column, found.columns)
            place = {} if name == column else {"field": column}
            found.columns[name] = column
            if each.form:
                found.taken[name] = {**each.form, **place}
            else:
                found.left[name] = {**each.otherwise, **place}, each.told
        return found


def _nothing_left(target: str, left: Mapping[str, tuple[dict[str, Any], str]]) -> UsageError:
    reasons = "; ".join(f"{name}: {why}" for name, (_, why) in left.items())
    why = reasons or "all others are dropped, or its id, time or entity"
    return UsageError(f"no column is left to predict {target} from: {why}")


def _check_named(columns: Mapping[str, Any], target: str, options: Options) -> None:
    named: list[tuple[str, str | None]] = [("--target", target)]
    named += [("--drop", column) for column in options.drop]
    named += [("--time", options.time), ("--entity", options.entity)]
    for option, wanted in named:
        if wanted is not None and wanted not in columns:
            near = did_you_mean(wanted, columns) or ";"
            raise UsageError(
                f"{option} {wanted}: no such column{near} there are {', '.join(columns)}"
            )
    for wanted in filter(None, (options.time, options.entity)):
        if any(isinstance(value, list) for value in columns[wanted]):
            raise UsageError(f"{wanted}: a list, expected a single value")
        if any(isinstance(value, dict) for value in columns[wanted]):
            raise UsageError(f"{wanted}: an object, expected a single value; name a part of it")
    for option, column in (("--time", options.time), ("--entity", options.entity)):
        if column == target:
            raise UsageError(
                f"{option} {column}: is the target, which is not known when its event is "
                "predicted; expected another column"
            )
        if column in options.drop:
            raise UsageError(f"{option} {column}: is also dropped; expected one of the two")
    if target in options.drop:
        raise UsageError(f"--drop {target}: is the target; expected another column")


def _as_seen(task: Task, partitions: int, largest_bytes: int) -> Task:
    """Note what the topic has: its partitions, and events larger than the default takes."""
    changes: dict[str, Any] = {}
    if partitions != task.topics.partitions:
        changes["topics"] = task.topics.model_copy(update={"partitions": partitions})
    if largest_bytes > task.input.max_bytes:
        room = min(1 << (2 * largest_bytes).bit_length(), MOST_EVENT_BYTES)
        changes["input"] = task.input.model_copy(update={"max_bytes": room})
    return task.model_copy(update=changes)


def describe(task: Task) -> list[str]:
    """Put the guess into lines for a person."""
    groups: dict[str, list[str]] = {}
    for name, each in task.features.items():
        groups.setdefault(each.kind, []).append((name or '""') + roles.reading(each))
    target = task.target
    what = f"one of {', '.join(target.classes)}" if target.classes else "a number"
    lines = [f"target    {target.field}: {what}{roles.reading(target)}"]
    lines += [f"{kind:<9} {', '.join(names)}" for kind, names in groups.items()]
    for role in ("id", "time", "entity"):
        column = getattr(task.input, role)
        if column and (role != "id" or "id" in task.input.model_fields_set):
            lines.append(f"{role:<9} {column}")
    return [visible(line, keep="") for line in lines]


def task_name(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", text).strip("-_")[:100] or "task"


def _feature_name(column: str, taken: Mapping[str, Any]) -> str:
    plain = column if not column.startswith("/") else ".".join(pointer(column))
    for name in (plain, column):
        if name not in taken and len(name) <= LONGEST_NAME:
            return name
    return f"{plain[: LONGEST_NAME - 10]} {len(taken) + 1}"
