"""Options beside a task file: what they replace, and what is refused by both names."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.stream.errors import TaskError, UsageError
from headrace.stream.evaluation.options import Options
from headrace.stream.evaluation.overrides import override
from headrace.stream.task import parse

TASK = parse(
    """
name = "t"
cross = [["c", "d"]]
[input]
topic = "e"
time = "when"
[target]
field = "y"
kind = "classify"
classes = ["a", "b"]
[features]
a = { kind = "number" }
b = { kind = "number", field = "/deep/b" }
c = { kind = "category" }
d = { kind = "category" }
mean = { kind = "aggregate", statistic = "mean", of = "a", seconds = 60 }
count = { kind = "aggregate", statistic = "count", seconds = 60 }
[model]
seed = 3
""",
    "t.toml",
)


def test_what_means_one_thing_is_taken() -> None:
    changed = override(
        TASK,
        "t.toml",
        "y",
        Options(
            kind="classify",
            max_classes=4,
            drop=["/deep/b", "count"],
            time="other",
            entity="who",
            dayfirst=True,
        ),
    )
    assert [*changed.features] == ["a", "c", "d", "mean"]
    assert (changed.input.time, changed.input.entity) == ("other", "who")
    assert changed.target.max_classes == 4
    back = {"input": TASK.input, "target": TASK.target, "features": TASK.features}
    assert changed.model_copy(update=back) == TASK
    assert changed.input.dayfirst is True
    assert override(TASK, "t.toml", None, Options()) == TASK


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "z"}, "--target z: t.toml has target.field = 'y'.*; change target.field there"),
        ({"kind": "regress"}, "--kind regress: t.toml has target.kind = 'classify'.*change target"),
        (
            {"decimal": ","},
            "--decimal ,: t.toml says of each number how it is written; set decimal = ',' there",
        ),
        (
            {"drop": ["deep/b"]},
            r"--drop deep/b: no feature of t.toml reads it; did you mean '/deep/b'\? there are a",
        ),
        ({"drop": ["z"]}, "--drop z: no feature of t.toml reads it; there are a, b, c, d, mean"),
        ({"drop": ["d"]}, "--drop d: cross of t.toml goes by features.d; change cross there first"),
        ({"drop": ["a"]}, "--drop a: features.mean.of of t.toml goes by features.a; change feat"),
    ],
)
def test_what_contradicts_the_file_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"^{words}"):
        override(TASK, "t.toml", options.pop("target", None), Options(**options))


def test_a_task_that_is_none_names_the_option() -> None:
    with pytest.raises(
        TaskError, match=r"^t.toml with --entity y: input.entity = 'y': it reads 'y', which"
    ):
        override(TASK, "t.toml", None, Options(entity="y"))
    few = parse('name="t"\n[input]\ntopic="e"\n[target]\nfield="y"\nkind="regress"\n[features]\n'
                'a={kind="number"}', "f")  # fmt: skip
    with pytest.raises(UsageError, match=r"--drop a: no feature of f is left to learn from"):
        override(few, "f", None, Options(drop=["a"]))
    with pytest.raises(UsageError, match=r"--max-classes 9: f has target\.kind = 'regress'"):
        override(few, "f", None, Options(max_classes=9))
