"""Which task is evaluated: that of a file, with what options say otherwise, or a guess."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.infer import describe, guess_file
from headrace.stream.evaluation.options import Options
from headrace.stream.evaluation.overrides import override
from headrace.stream.formats import files
from headrace.stream.ledger.fingerprint import differences, settings_of
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task, load

_GONE = "-> not there"


@dataclass(frozen=True)
class Subject:
    """Hold a task that is to be evaluated.

    Attributes:
        said: what a person has to know of how it was come by, in lines.
        doubts: those of them about what is left out, or not sure.
    """

    task: Task
    said: list[str]
    doubts: list[str]


def subject(path: str | None, target: str | None, data: files.Given, options: Options) -> Subject:
    """Return the task of a file, changed as options say; without a file, what the data suggest.

    Raises:
        UsageError: neither a file nor a target is named; options and file contradict each other;
            nothing can be guessed.
        TaskError: the file holds no task, or none with these options.
    """
    if path is not None:
        loaded = load(path)
        task = override(loaded, path, target, options)
        return Subject(task, [*_changes(path, loaded, task)], [])
    if target is None:
        raise UsageError("--target: missing; name a task file, or the column to predict")
    found = guess_file(data, target, options)
    doubts = found.lines()
    return Subject(found.task, [*describe(found.task), *doubts], doubts)


def told_apart(name: str, task: str | None, other: str | None) -> tuple[str, str]:
    """Return what two tasks are called in tables: by their files, where they stand.

    Args:
        name: of the first task, which counts if it has no file.
        other: the file of the second one, if there is one.
    """
    if other is None:
        return "headrace", ""
    first, second = Path(task).stem if task else name, Path(other).stem
    if first == second:
        first, second = str(task or name), str(other)
    return first, second if first != second else f"{second}, again"


def _changes(path: str, loaded: Task, changed: Task) -> Iterator[str]:
    """Yield a line for each key that options changed."""
    for line in differences(settings_of(loaded), settings_of(changed)):
        key, _, values = line.partition(": ")
        told = "left out" if values.endswith(_GONE) else values
        yield visible(f"{path}, changed: {key}: {told}", keep="")
